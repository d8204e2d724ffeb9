"""Exponential moving average of the weights, θ̄ ← d·θ̄ + (1 − d)·θ, which is evaluated and kept.

In the nth update of a tensor, d is the smaller of the decay and (1 + n)/(10 + n), as in the
ExponentialMovingAverage of TensorFlow. So the average is over about the last tenth of the updates
until the decay is reached, and initial weights leave it quickly: in a short training, and for a
domain that is in few steps.

A domain's own weights are averaged in the steps that changed them. Running statistics are averaged
too, so that the averaged weights are used with statistics of about the same age.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from onetrunk.nn.universal import Universal
from onetrunk.train.optimizer import SHARED


class Average:
    """The averages of one model's floating-point tensors, by owner (a domain or SHARED)."""

    def __init__(self, model: Universal, decay: float) -> None:
        self.decay = decay
        named = model.state_dict(keep_vars=True).items()
        state: dict[str, Tensor] = {k: t for k, t in named if t.is_floating_point()}
        keys = {id(tensor): key for key, tensor in state.items()}
        self.live = {SHARED: dict(state)}
        for name in model.domains:
            listed = {keys.get(id(tensor)) for tensor in model.own(name).values()}
            own = {k: self.live[SHARED].pop(k) for k in listed if k in self.live[SHARED]}
            self.live[name] = dict(sorted(own.items()))
        self.updates = dict.fromkeys(self.live, 0)  # by owner
        self.averaged = {
            owner: {key: tensor.clone() for key, tensor in tensors.items()}
            for owner, tensors in self.live.items()
        }

    @torch.no_grad()
    def step(self, domains: Iterable[str]) -> None:
        """Update the averages after a step with these domains."""
        for owner in (SHARED, *domains):
            averaged = list(self.averaged[owner].values())
            self.updates[owner] += 1
            if averaged:
                live, decay = list(self.live[owner].values()), self.decay_at(self.updates[owner])
                torch._foreach_lerp_(averaged, live, 1 - decay)

    def decay_at(self, update: int) -> float:
        """Return the decay in an update, which is counted from 1."""
        return min(self.decay, (1 + update) / (10 + update))

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Use the averaged weights inside the block."""
        pairs = [
            (tensor, self.averaged[owner][key])
            for owner, live in self.live.items()
            for key, tensor in live.items()
        ]
        before = [live.clone() for live, _ in pairs]
        for live, averaged in pairs:
            live.copy_(averaged)
        try:
            yield
        finally:
            for (live, _), saved in zip(pairs, before, strict=True):
                live.copy_(saved)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by the tensors' names in the model, for a checkpoint."""
        return {key: tensor for own in self.averaged.values() for key, tensor in own.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the averages from a checkpoint."""
        for own in self.averaged.values():
            for key, tensor in own.items():
                tensor.copy_(tensors[key])
