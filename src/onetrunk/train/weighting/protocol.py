"""What a weighting is: how the losses of a step's units become one gradient.

A unit is a (domain, task) pair, written "domain/task". Everything is given for the K units of a
step alone, and `present` says which of the run's N units they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

Needs = Literal["nothing", "losses", "after", "gram", "jacobian"]
# nothing: the weights are known before the losses are; each batch's graph can go at once
# losses: the weights depend on all losses of the very step, whose graphs are held until then
# after: as losses, and the same batches' losses once more after the step: one more forward pass
# gram: the weights depend on G = J·Jᵀ (K×K), J the units' gradients on what they share: K backward
#     passes over the trunk and K times its size in memory
# jacobian: the gradient comes from J itself (K×P), as expensive
NEEDS: tuple[Needs, ...] = ("nothing", "losses", "after", "gram", "jacobian")
GRADIENTS: tuple[Needs, ...] = ("gram", "jacobian")


@dataclass(frozen=True)
class Setup:
    """What a weighting is told of the run that it is made for."""

    units: tuple[str, ...]
    seed: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a device never changes)
    epoch: int = 100  # steps of an epoch: the window of what papers do by epochs

    def of(self, present: Sequence[int]) -> Tensor:
        """Numbers of units as an index."""
        return torch.tensor(list(present), dtype=torch.long, device=self.device)


class Weighting(Protocol):
    """One method, made by `thing(setup, settings)`; only what it `needs` is ever called.

    A step calls one of `weights`, `weigh` and `combine` once, then `saw`, then (after) `saw_after`.
    """

    needs: ClassVar[Needs]

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        """(nothing, losses, after) One weight for each unit; 1 each where all are alike.

        The shared gradient is Σ_k w_k·g_k / K. No losses are given where nothing is needed.
        """

    def weigh(self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        """(gram) The same from G: the shared gradient is Σ_k w_k·g_k / K."""

    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        """(jacobian) The shared gradient (P,) itself."""

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        """The step is done; these were its losses, detached."""

    def saw_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        """(after) The losses of the same batches with the weights that the step has led to."""

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on; live tensors, to be written before it."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As it was when `state` was written, to the bit."""
