"""GradNorm (Chen, Badrinarayanan, Lee & Rabinovich, "GradNorm: gradient normalization for adaptive
loss balancing in deep multitask networks", ICML 2018, arXiv:1711.02257).

The target of G_u = w_u·‖g_u‖ is Ḡ·r_u^α, Ḡ the mean of G over the step's units and
r_u = (ℓ_u/ℓ_u(0)) over its mean: units that learn slowly get longer gradients. The weights minimize
Σ|G_u − Ḡ·r_u^α|, with the target held fixed, and keep a mean of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import Setup, Weighting, adam_state, adam_step


class GradnormSettings(Settings):
    """Settings of gradnorm."""

    alpha: float = Field(
        default=1.5, ge=0, description="strength of the pull towards equal training rates"
    )
    lr: float = Field(default=0.025, gt=0, description="learning rate of log-weights, by Adam")


class GradNorm(Weighting):
    """w = N·softmax(v), always positive. ‖g‖ is over all shared parameters, not one layer."""

    needs_gram = True
    settings_type = GradnormSettings
    settings: GradnormSettings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.saved |= {**adam_state(self.full(0), "v"), "first": self.full(torch.nan)}

    def weights_from_gram(
        self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]
    ) -> Tensor:
        index, saved = self.setup.index(present), self.saved
        losses_K = self.positive(losses_K)
        first = saved["first"][index]
        saved["first"][index] = torch.where(first.isnan(), losses_K, first)
        w_K = len(self.setup.units) * torch.softmax(saved["v"], 0)[index]

        length_K = gram_KK.diagonal().clamp_min(0).sqrt().to(w_K)
        rate_K = losses_K / saved["first"][index]
        rate_K = rate_K / rate_K.mean()
        G_K = w_K * length_K
        slope_K = torch.sign(G_K - G_K.mean() * rate_K**self.settings.alpha) * length_K  # by w
        slope_K = w_K * (slope_K - (w_K * slope_K).sum() / w_K.sum())  # by v
        adam_step(saved, "v", index, slope_K, self.settings.lr)
        return w_K


WEIGHTING = GradNorm
