"""An exponential average of the weights, θ̄ ← d·θ̄ + (1 − d)·θ, to evaluate and to keep.

A domain's own weights are averaged in the steps that moved them. Running statistics go along, so that
the averaged weights meet statistics of about their own age.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from onetrunk.nn.universal import Universal

SHARED = ""


class Average:
    """The averages of one model's floating-point tensors."""

    def __init__(self, model: Universal, decay: float) -> None:
        self.decay = decay
        named = model.state_dict(keep_vars=True).items()
        state: dict[str, Tensor] = {k: t for k, t in named if t.is_floating_point()}
        places = {id(tensor): key for key, tensor in state.items()}
        self.live = {SHARED: dict(state)}
        for name in model.domains:
            keys = {places.get(id(tensor)) for tensor in model.own(name).values()}
            mine = {k: self.live[SHARED].pop(k) for k in keys if k in self.live[SHARED]}
            self.live[name] = dict(sorted(mine.items()))
        self.kept = {
            unit: {key: tensor.clone() for key, tensor in tensors.items()}
            for unit, tensors in self.live.items()
        }

    @torch.no_grad()
    def step(self, domains: Iterable[str]) -> None:
        """After a step with these domains."""
        for unit in (SHARED, *domains):
            kept, live = list(self.kept[unit].values()), list(self.live[unit].values())
            if kept:
                torch._foreach_lerp_(kept, live, 1 - self.decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The model with its averaged weights, and then as it was."""
        pairs = [(live[k], kept[k]) for live, kept in self._units() for k in live]
        aside = [live.clone() for live, _ in pairs]
        for live, kept in pairs:
            live.copy_(kept)
        try:
            yield
        finally:
            for (live, _), was in zip(pairs, aside, strict=True):
                live.copy_(was)

    def _units(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        for unit, live in self.live.items():
            yield live, self.kept[unit]

    def state(self) -> dict[str, Tensor]:
        """By the tensors' names in the model."""
        return {key: tensor for kept in self.kept.values() for key, tensor in kept.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for kept in self.kept.values():
            for key, tensor in kept.items():
                tensor.copy_(tensors[key])
