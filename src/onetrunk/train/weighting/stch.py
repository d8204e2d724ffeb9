"""Smooth Tchebycheff scalarization (Lin, Zhang, Yang, Liu, Wang & Zhang, "Smooth Tchebycheff
scalarization for multi-objective optimization", ICML 2024, arXiv:2402.19078).

The step descends μ·log Σ_u exp(f_u/μ), a smooth maximum. As in the authors' multi-task experiments
f_u = log(ℓ_u/ℓ⁰_u), ℓ⁰ the unit's mean loss over its first `warmup` steps, in which f = 0: then the
step descends the mean of the log-losses. ∇f = ∇ℓ/ℓ, so w_u ∝ (ℓ_u/ℓ⁰_u)^(1/μ) / ℓ_u.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Needs, Setup
from onetrunk.train.weighting.settings import real, take, whole


@dataclass(frozen=True)
class Settings:
    mu: float = real(1.0, open=True)  # towards 0 the worst unit alone counts
    warmup: int = whole(0)  # steps of a unit; 0: an epoch


class Stch(Method):
    """The weights have a mean of 1 over the step's units; the paper's sum grows as losses fall."""

    needs: ClassVar[Needs] = "losses"

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "stch")
        self.warmup = self.settings.warmup or setup.epoch
        self.kept |= {"sum": self.each(), "count": self.each()}

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        where = self.setup.of(present)
        log_K = self.known(losses_K).log()
        total, count = self.kept["sum"][where], self.kept["count"][where]
        far = log_K - (total / count).log()
        warm = (count >= self.warmup).all()  # until all of the step are, their f are 0
        return len(present) * torch.softmax(torch.where(warm, far, 0) / self.settings.mu - log_K, 0)

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().saw(losses_K, present)
        where = self.setup.of(present)
        cold = (self.kept["count"][where] < self.warmup).float()
        self.kept["sum"][where] += cold * self.known(losses_K)
        self.kept["count"][where] += cold
