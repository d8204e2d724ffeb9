"""Dual balancing (Lin, Jiang, Ye, Zhang, Chen, Chen, Liu & Kwok, "Dual-balancing for multi-task
learning", 2023, arXiv:2308.12029): losses balanced by their logarithm, gradients by their length.

The gradients of log ℓ, g/ℓ, are averaged over the steps, ĝ ← β·ĝ + (1 − β)·g/ℓ, and all scaled to
the length of the longest: Σ_u ĝ_u·max‖ĝ‖/‖ĝ_u‖.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import MIN_LOSS, Weighting


class DbMtlSettings(Settings):
    """Settings of db-mtl."""

    beta: float = Field(default=0.9, ge=0, le=0.9999, description="decay of the mean gradients")
    sigma: float = Field(default=0.0, ge=0, description="the decay is beta/t^sigma at step t")


class DualBalancing(Weighting):
    """The paper's sum over K, times the harmonic mean of the losses: a gradient of ℓ, not of log ℓ.

    The averages start at a unit's first gradient, not at 0. They are as large as N trunks and are
    part of the checkpoint. The logarithm applies to the shared parameters; heads are trained on
    the losses themselves.
    """

    needs_jacobian = True
    settings_type = DbMtlSettings
    settings: DbMtlSettings

    @torch.no_grad()
    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        losses_K = losses_K.to(jacobian_KP).clamp_min(MIN_LOSS)
        beta = self.settings.beta / (self.step + 1) ** self.settings.sigma
        rows = []
        for gradient, loss, unit in zip(jacobian_KP, losses_K, present, strict=True):
            new, name = gradient / loss, f"mean/{unit}"
            if name in self.saved:
                self.saved[name].lerp_(new, 1 - beta)
            else:
                self.saved[name] = new
            rows.append(self.saved[name])
        length_K = torch.stack([row.norm() for row in rows])
        factor_K = torch.where(length_K > 0, length_K.max() / length_K, 0)
        factor_K = factor_K / (1 / losses_K).sum()  # 1/K times the harmonic mean
        total = torch.zeros_like(rows[0])
        for row, factor in zip(rows, factor_K, strict=True):
            total.addcmul_(row, factor)
        return total

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.saved = {"step": tensors["step"].to("cpu", copy=True)}
        for name in tensors.keys() - {"step"}:
            self.saved[name] = tensors[name].to(self.setup.device, copy=True)


WEIGHTING = DualBalancing
