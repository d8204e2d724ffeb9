"""Dual loss weighting (Lin, Jiang, Ye, Zhang, Chen, Chen, Liu & Kwok, "Dual-loss weighting for multi-task
learning", 2023, arXiv:2308.12029): losses balanced by their logarithm, gradients by their length.

The gradients of log ℓ, g/ℓ, are averaged over the steps, ĝ ← β·ĝ + (1 − β)·g/ℓ, and all brought to
the length of the longest: Σ_u ĝ_u·max‖ĝ‖/‖ĝ_u‖.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onetrunk.train.weighting.method import TINY, Method
from onetrunk.train.weighting.protocol import Needs, Setup
from onetrunk.train.weighting.settings import real, take


@dataclass(frozen=True)
class Settings:
    beta: float = real(0.9, 0.0, 0.9999)
    sigma: float = real(0.0)  # the average forgets faster or slower: β/t^σ at step t


class DbMtl(Method):
    """The paper's sum over K, times the harmonic mean of the losses: a gradient of ℓ, not of log ℓ.

    The averages start at a unit's first gradient, not at 0. They are as large as N trunks and
    belong to the checkpoint. The logarithm acts on what is shared; heads learn from the losses as
    they are.
    """

    needs: ClassVar[Needs] = "jacobian"

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "db-mtl")

    @torch.no_grad()
    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        losses_K = losses_K.to(jacobian_KP).clamp_min(TINY)
        keep = self.settings.beta / (self.step + 1) ** self.settings.sigma
        rows = []
        for gradient, loss, unit in zip(jacobian_KP, losses_K, present, strict=True):
            new, name = gradient / loss, f"mean/{unit}"
            if name in self.kept:
                self.kept[name].lerp_(new, 1 - keep)
            else:
                self.kept[name] = new
            rows.append(self.kept[name])
        length_K = torch.stack([row.norm() for row in rows])
        factor_K = torch.where(length_K > 0, length_K.max() / length_K, 0)
        factor_K = factor_K / (1 / losses_K).sum()  # 1/K times the harmonic mean
        total = torch.zeros_like(rows[0])
        for row, factor in zip(rows, factor_K, strict=True):
            total.addcmul_(row, factor)
        return total

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.kept = {"step": tensors["step"].to("cpu", copy=True)}
        for name in tensors.keys() - {"step"}:
            self.kept[name] = tensors[name].to(self.setup.device, copy=True)
