"""The units' gradients on what they share, and the one that a weighting makes of them.

A step adds its losses, all at once or a batch at a time (then one batch's graph alone is held).
Each call costs one backward pass for each unit in it: where every unit has one batch, K passes in
all. A unit's row is the mean over its batches; what belongs to it alone learns from it directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import Diverged
from onetrunk.train.weighting.protocol import Weighting

COLUMNS = 1 << 20  # of J that are doubled at once


class Jacobian:
    """J of one step, K×P in float32 (float64 where the parameters are), as large as K trunks."""

    def __init__(
        self,
        shared: Sequence[Tensor],
        units: Sequence[str],
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.units, self.scaler = units, scaler
        self.sizes = [parameter.numel() for parameter in self.shared]
        self.reached = [False] * len(self.shared)
        self.rows: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}  # of the losses
        self.counts: dict[int, int] = {}

    def add(
        self,
        losses: Sequence[tuple[int, Tensor]],
        own: Mapping[int, Sequence[Tensor]] | None = None,
        share: Mapping[int, float] | None = None,
    ) -> None:
        """Units' losses with their graphs, which are gone afterwards.

        own: the parameters of a unit that learn from nothing but it and others of its domain; their
        `.grad` grows by `share` (1) times the gradient of each loss.
        """
        totals: dict[int, Tensor] = {}
        for unit, loss in losses:
            totals[unit] = totals[unit] + loss if unit in totals else loss
            self.counts[unit] = self.counts.get(unit, 0) + 1
        for rank, (unit, total) in enumerate(totals.items()):
            before = self.sums.get(unit)
            self.sums[unit] = total.detach() if before is None else before + total.detach()
            mine = [p for p in (own or {}).get(unit, ()) if p.requires_grad]
            self._backward(unit, total, mine, (share or {}).get(unit, 1.0), rank + 1 < len(totals))

    def _backward(
        self, unit: int, loss: Tensor, own: list[Tensor], share: float, again: bool
    ) -> None:
        row = self.rows.get(unit)
        if row is None:
            wide = any(parameter.dtype == torch.float64 for parameter in self.shared)
            kind = torch.float64 if wide else torch.float32
            row = torch.zeros(sum(self.sizes), dtype=kind, device=loss.device)
            self.rows[unit] = row
        if not loss.requires_grad:
            return  # a batch without any label
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        found = torch.autograd.grad(
            scaled, [*self.shared, *own], retain_graph=again, allow_unused=True
        )
        pieces = torch.split(row, self.sizes)
        for place, (piece, parameter) in enumerate(zip(pieces, self.shared, strict=True)):
            gradient = found[place]
            if gradient is not None:
                piece.view(parameter.shape).add_(gradient)  # by index, whatever the layout
                self.reached[place] = True
        for parameter, gradient in zip(own, found[len(self.shared) :], strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(gradient, alpha=share)

    @property
    def present(self) -> list[int]:
        """The units of the step, by their numbers."""
        return sorted(self.rows)

    def losses(self) -> Tensor:
        """Of the units that are present, means over their batches."""
        return torch.stack([self.sums[unit] / self.counts[unit] for unit in self.present])

    def matrix(self) -> Tensor:
        """J, a row for each unit that is present; infinities of a scaler's overflow included."""
        J = torch.stack([self.rows[unit] / self.counts[unit] for unit in self.present])
        return J if self.scaler is None else J / self._scale(J)

    def learn(self, weighting: Weighting) -> None:
        """The shared parameters' `.grad` grows by what the weighting makes of J.

        A gradient that is not finite ends the run, before the weighting has seen it; with a scaler
        float16 has overflowed, and the scaler is left to skip the step.
        """
        J, present = self.matrix(), self.present
        finite = torch.isfinite(J).all(1).tolist()
        if all(finite):
            gradient = combined(weighting, J, self.losses(), present)
        elif self.scaler is not None:
            gradient = J.sum(0)
        else:
            bad = [self.units[unit] for unit, fine in zip(present, finite, strict=True) if not fine]
            raise Diverged(
                f"the gradient of {', '.join(bad)} on the shared parameters is not finite; the "
                "last checkpoint is whole; try: a new run with a lower train.lr or with "
                "train.clip = 1"
            )
        self.write(gradient if self.scaler is None else gradient * self._scale(gradient))

    def write(self, gradient_P: Tensor) -> None:
        """A flat gradient onto `.grad`, in each parameter's own layout; None where no loss came."""
        pieces = torch.split(gradient_P, self.sizes)
        for parameter, piece, reached in zip(self.shared, pieces, self.reached, strict=True):
            if not reached:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(piece.view(parameter.shape))

    def _scale(self, like: Tensor) -> Tensor:
        if self.scaler is None:
            return like.new_ones(())
        return self.scaler.scale(like.new_ones(()))


def combined(
    weighting: Weighting, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]
) -> Tensor:
    """The shared gradient (P,) of a weighting that needs gradients."""
    if weighting.needs == "jacobian":
        return weighting.combine(jacobian_KP, losses_K, present)
    weights_K = weighting.weigh(gram(jacobian_KP), losses_K, present)
    return (weights_K.to(jacobian_KP) / len(present)) @ jacobian_KP


def gram(jacobian_KP: Tensor) -> Tensor:
    """J·Jᵀ, added up in float64 where the device has it: its small eigenvalues matter."""
    kind = torch.float32 if jacobian_KP.device.type == "mps" else torch.float64
    parts = (part.to(kind) for part in torch.split(jacobian_KP, COLUMNS, dim=1))
    total = jacobian_KP.new_zeros((len(jacobian_KP),) * 2, dtype=kind)
    for part in parts:
        total.addmm_(part, part.T)
    return total
