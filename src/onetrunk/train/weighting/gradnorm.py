"""GradNorm (Chen, Badrinarayanan, Lee & Rabinovich, "GradNorm: gradient normalization for adaptive
loss loss weighting in deep multitask networks", ICML 2018, arXiv:1711.02257).

G_u = w_u·‖g_u‖ shall be Ḡ·r_u^α, Ḡ the mean of G over the step's units and r_u = (ℓ_u/ℓ_u(0)) over
its mean: who learns slowly gets the longer gradient. The weights descend Σ|G_u − Ḡ·r_u^α|, the
target held fixed, and keep a mean of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onetrunk.train.weighting.adam import descend, lwf
from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Needs, Setup
from onetrunk.train.weighting.settings import real, take


@dataclass(frozen=True)
class Settings:
    alpha: float = real(1.5)
    lr: float = real(0.025, open=True)  # of the weights' logarithms, by Adam


class GradNorm(Method):
    """w = N·softmax(v): positive by itself. ‖g‖ is over all that is shared, not one layer of it."""

    needs: ClassVar[Needs] = "gram"

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "gradnorm")
        self.kept |= {**lwf(self.each(), "v"), "first": self.each(torch.nan)}

    def weigh(self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        where, kept = self.setup.of(present), self.kept
        losses_K = self.known(losses_K)
        first = kept["first"][where]
        kept["first"][where] = torch.where(first.isnan(), losses_K, first)
        w_K = len(self.setup.units) * torch.softmax(kept["v"], 0)[where]

        length_K = gram_KK.diagonal().clamp_min(0).sqrt().to(w_K)
        rate_K = losses_K / kept["first"][where]
        rate_K = rate_K / rate_K.mean()
        G_K = w_K * length_K
        slope_K = torch.sign(G_K - G_K.mean() * rate_K**self.settings.alpha) * length_K  # by w
        slope_K = w_K * (slope_K - (w_K * slope_K).sum() / w_K.sum())  # by v
        descend(kept, "v", where, slope_K, self.settings.lr)
        return w_K
