"""Smooth Tchebycheff scalarization (Lin, Zhang, Yang, Liu, Wang & Zhang, "Smooth Tchebycheff
scalarization for multi-objective optimization", ICML 2024, arXiv:2402.19078).

The step minimizes μ·log Σ_u exp(f_u/μ), a smooth maximum. As in the authors' multi-task experiments
f_u = log(ℓ_u/ℓ⁰_u), ℓ⁰ the unit's mean loss over its first `warmup` steps, in which f = 0: then the
step minimizes the mean of the log-losses. ∇f = ∇ℓ/ℓ, so w_u ∝ (ℓ_u/ℓ⁰_u)^(1/μ) / ℓ_u.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import Setup, Weighting


class StchSettings(Settings):
    """Settings of stch."""

    mu: float = Field(default=1.0, gt=0, description="closer to 0, only the worst unit counts")
    warmup: int = Field(default=0, ge=0, description="steps of a unit; 0: an epoch")


class SmoothTchebycheff(Weighting):
    """The weights have a mean of 1 over the step's units; the paper's sum grows as losses fall."""

    needs_losses = True
    settings_type = StchSettings
    settings: StchSettings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.warmup = self.settings.warmup or setup.epoch
        self.saved |= {"sum": self.full(0), "count": self.full(0)}

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        index = self.setup.index(present)
        log_K = self.positive(losses_K).log()
        total, count = self.saved["sum"][index], self.saved["count"][index]
        f_K = log_K - (total / count).log()
        warm = (count >= self.warmup).all()  # until all units of the step are warm, f = 0
        return len(present) * torch.softmax(torch.where(warm, f_K, 0) / self.settings.mu - log_K, 0)

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().update(losses_K, present)
        index = self.setup.index(present)
        cold = (self.saved["count"][index] < self.warmup).float()
        self.saved["sum"][index] += cold * self.positive(losses_K)
        self.saved["count"][index] += cold


WEIGHTING = SmoothTchebycheff
