"""The base class of loss weightings, and helpers of several of them.

A unit is a (domain, task) pair, written "domain/task". A step holds K of the run's N units; methods
get the values of these K, and `present`, the indices of these units in the run's list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onetrunk.settings import Settings

MIN_LOSS = 1e-8  # lower limit of losses, before a division or a logarithm
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam


@dataclass(frozen=True)
class Setup:
    """The properties of a run that a weighting may use."""

    units: tuple[str, ...]
    seed: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a device is immutable)
    epoch: int = 100  # steps in an epoch, the window of methods that work by epochs

    def index(self, present: Sequence[int]) -> Tensor:
        """Return the indices of units as a tensor."""
        return torch.tensor(list(present), dtype=torch.long, device=self.device)


class NoSettings(Settings):
    """The settings of a method that has none."""


class Weighting:
    """A loss weighting, created as `thing(setup, settings)`.

    A step calls one of `weights`, `weights_from_gram` and `combine`, then `update`, then (with
    `needs_losses_after`) `update_after`. The flags declare what a method needs, and a run only pays
    for that. Without any flag, the weights are known before the losses, and each batch's graph is
    freed immediately.
    """

    needs_losses: ClassVar[bool] = False
    """`weights` depends on all losses of the step, so the graphs of all its batches are kept."""
    needs_losses_after: ClassVar[bool] = False
    """`update_after` gets the same batches' losses after the step: one more forward pass."""
    needs_gram: ClassVar[bool] = False
    """`weights_from_gram` replaces `weights`. G = J·Jᵀ (K×K), J the gradients of the units on the
    parameters that they share: K backward passes over the trunk and K times its size in memory."""
    needs_jacobian: ClassVar[bool] = False
    """`combine` replaces `weights`; it gets J itself (K×P), at the same cost."""
    uniform: ClassVar[bool] = False
    """All weights are 1, so the losses need not be multiplied."""

    settings_type: ClassVar[type[Settings]] = NoSettings
    settings: Settings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        self.setup = setup
        self.settings = self.settings_type.of(settings, "train.weighting_settings")
        self.saved: dict[str, Tensor] = {"step": torch.zeros((), dtype=torch.long)}

    @property
    def needs_gradients(self) -> bool:
        """Whether the method needs each unit's gradient."""
        return self.needs_gram or self.needs_jacobian

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return int(self.saved["step"])

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        """Return one weight for each unit of the step, all 1 if the units do not differ.

        The shared gradient is Σ_k w_k·g_k / K. `losses_K` is None without `needs_losses`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no weights before the gradients")

    def weights_from_gram(
        self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]
    ) -> Tensor:
        """Return the weights, from the Gram matrix of the gradients (with `needs_gram`)."""
        raise NotImplementedError(f"{type(self).__name__} does not use the Gram matrix")

    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        """Return the shared gradient (P,), from the Jacobian (with `needs_jacobian`)."""
        raise NotImplementedError(f"{type(self).__name__} does not use the Jacobian")

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        """Update the state with the step's losses (detached), after the step."""
        self.saved["step"] += 1

    def update_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        """Update the state with the same batches' losses after it (with `needs_losses_after`)."""

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on: live tensors, to be written before it."""
        return dict(self.saved)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what `state` returned."""
        for name, tensor in self.saved.items():
            tensor.copy_(tensors[name])

    def full(self, value: float) -> Tensor:
        """Return the same number for each unit of the run, (N,)."""
        return torch.full((len(self.setup.units),), float(value), device=self.setup.device)

    def positive(self, losses_K: Tensor | None) -> Tensor:
        """Return the losses in float32 on the method's device, at least MIN_LOSS."""
        if losses_K is None:
            raise RuntimeError(f"{type(self).__name__} needs the losses of the step")
        return losses_K.detach().to(self.setup.device, torch.float32).clamp_min(MIN_LOSS)


def adam_state(value_N: Tensor, name: str) -> dict[str, Tensor]:
    """Return a vector of one number per unit with its state of Adam, for `Weighting.saved`."""
    parts = {f"{name}/{part}": torch.zeros_like(value_N) for part in ("mean", "square", "count")}
    return {name: value_N, **parts}


@torch.no_grad()
def adam_step(
    saved: dict[str, Tensor], name: str, index_K: Tensor, grad_K: Tensor, lr: float
) -> None:
    """Adam (Kingma & Ba 2015), θ ← θ − lr·m̂/(√v̂ + ε), for the units of a step only."""
    mean, square, count = (saved[f"{name}/{part}"] for part in ("mean", "square", "count"))
    grad_K = grad_K.to(mean)
    count[index_K] += 1
    mean[index_K] = torch.lerp(grad_K, mean[index_K], BETA1)
    square[index_K] = torch.lerp(grad_K.square(), square[index_K], BETA2)
    m = mean[index_K] / (1 - BETA1 ** count[index_K])
    v = square[index_K] / (1 - BETA2 ** count[index_K])
    saved[name][index_K] -= lr * m / (v.sqrt() + EPSILON)
