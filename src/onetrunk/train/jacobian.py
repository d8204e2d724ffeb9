"""The gradients of a step's units on their shared parameters, and their combination.

Losses are added together, or a batch at a time (then only one batch's graph is in memory). Each
call costs one backward pass for each unit in it: K passes in all if every unit has one batch. The
row of a unit is the mean over its batches. Parameters that only one unit uses get their gradient
directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import Diverged
from onetrunk.train.weighting import Weighting

COLUMNS = 1 << 20  # of J that are converted to float64 at a time


class Jacobian:
    """J of one step, K×P in float32 (float64 where the parameters are), as large as K trunks.

    Args:
        shared: The parameters that several units share; P numbers in all.
        units: The names of the run's units.
    """

    def __init__(
        self,
        shared: Sequence[Tensor],
        units: Sequence[str],
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.units, self.scaler = units, scaler
        self.sizes = [parameter.numel() for parameter in self.shared]
        self.reached = [False] * len(self.shared)  # whether a parameter has had a gradient
        self.rows: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}  # of the losses
        self.counts: dict[int, int] = {}

    def add(
        self,
        losses: Sequence[tuple[int, Tensor]],
        own: Mapping[int, Sequence[Tensor]] | None = None,
        share: Mapping[int, float] | None = None,
    ) -> None:
        """Add the losses of units, with their graphs, which are freed.

        Args:
            losses: Unit numbers and losses.
            own: By unit, the parameters that only this unit (and others of its domain) trains.
            share: By unit, the factor of its gradients on its own parameters, by default 1.
        """
        totals: dict[int, Tensor] = {}
        for unit, loss in losses:
            totals[unit] = totals[unit] + loss if unit in totals else loss
            self.counts[unit] = self.counts.get(unit, 0) + 1
        for rank, (unit, total) in enumerate(totals.items()):
            before = self.sums.get(unit)
            self.sums[unit] = total.detach() if before is None else before + total.detach()
            parameters = [p for p in (own or {}).get(unit, ()) if p.requires_grad]
            factor = (share or {}).get(unit, 1.0)
            self._backward(unit, total, parameters, factor, retain=rank + 1 < len(totals))

    def _backward(
        self, unit: int, loss: Tensor, own: list[Tensor], share: float, retain: bool
    ) -> None:
        row = self.rows.get(unit)
        if row is None:
            double = any(parameter.dtype == torch.float64 for parameter in self.shared)
            dtype = torch.float64 if double else torch.float32
            row = torch.zeros(sum(self.sizes), dtype=dtype, device=loss.device)
            self.rows[unit] = row
        if not loss.requires_grad:
            return  # a batch without any label
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        gradients = torch.autograd.grad(
            scaled, [*self.shared, *own], retain_graph=retain, allow_unused=True
        )
        pieces = torch.split(row, self.sizes)
        for i, (piece, parameter) in enumerate(zip(pieces, self.shared, strict=True)):
            gradient = gradients[i]
            if gradient is not None:
                piece.view(parameter.shape).add_(gradient)  # by index: memory layouts may differ
                self.reached[i] = True
        for parameter, gradient in zip(own, gradients[len(self.shared) :], strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(gradient, alpha=share)

    @property
    def present(self) -> list[int]:
        """The numbers of the step's units."""
        return sorted(self.rows)

    def losses(self) -> Tensor:
        """Return the mean loss of each unit over its batches, (K,)."""
        return torch.stack([self.sums[unit] / self.counts[unit] for unit in self.present])

    def matrix(self) -> Tensor:
        """Return J, (K, P); with a scaler it may hold infinities from an overflow."""
        J = torch.stack([self.rows[unit] / self.counts[unit] for unit in self.present])
        return J if self.scaler is None else J / self._scale(J)

    def apply(self, weighting: Weighting) -> None:
        """Add the weighting's gradient to `.grad` of the shared parameters.

        A gradient that is not finite ends the run before the weighting gets it. With a scaler it is
        an overflow of float16, and the scaler skips the step.
        """
        J, present = self.matrix(), self.present
        finite = torch.isfinite(J).all(1).tolist()
        if all(finite):
            gradient = shared_gradient(weighting, J, self.losses(), present)
        elif self.scaler is not None:
            gradient = J.sum(0)
        else:
            bad = [self.units[unit] for unit, fine in zip(present, finite, strict=True) if not fine]
            raise Diverged(
                f"the gradient of {', '.join(bad)} on the shared parameters is not finite; the "
                "last checkpoint is intact",
                try_="a new run with a lower train.lr or with train.clip = 1",
            )
        self._write(gradient if self.scaler is None else gradient * self._scale(gradient))

    def _write(self, gradient_P: Tensor) -> None:
        """Add a flat gradient to `.grad`, in each parameter's layout; None stays where unused."""
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


def shared_gradient(
    weighting: Weighting, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]
) -> Tensor:
    """Return the shared gradient (P,) of a weighting that needs gradients."""
    if weighting.needs_jacobian:
        return weighting.combine(jacobian_KP, losses_K, present)
    weights_K = weighting.weights_from_gram(gram(jacobian_KP), losses_K, present)
    return (weights_K.to(jacobian_KP) / len(present)) @ jacobian_KP


def gram(jacobian_KP: Tensor) -> Tensor:
    """Return J·Jᵀ, in float64 if the device has it, because its small eigenvalues matter."""
    dtype = torch.float32 if jacobian_KP.device.type == "mps" else torch.float64
    parts = (part.to(dtype) for part in torch.split(jacobian_KP, COLUMNS, dim=1))
    total = jacobian_KP.new_zeros((len(jacobian_KP),) * 2, dtype=dtype)
    for part in parts:
        total.addmm_(part, part.T)
    return total
