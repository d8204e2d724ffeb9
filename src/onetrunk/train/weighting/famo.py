"""Fast adaptive multitask optimization (Liu, Feng, Stone & Liu, "FAMO", NeurIPS 2023,
arXiv:2306.03792): all losses fall at the same rate, without any unit's own gradient.

Logits ξ give z = softmax(ξ); the step minimizes c·Σ z_u·log ℓ_u, c = 1/Σ(z_u/ℓ_u), so it uses a
convex combination of the gradients. Then δ_u = log ℓ_u − log ℓ_u' measures how much each loss has
fallen in this step, and Adam moves ξ along (∂z/∂ξ)ᵀδ + γξ: the unit whose loss fell most loses
weight. The losses ℓ' of the same batches after the step cost one more forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import Setup, Weighting, adam_state, adam_step


class FamoSettings(Settings):
    """Settings of famo."""

    gamma: float = Field(default=1e-3, ge=0, description="weight decay of the logits")
    lr: float = Field(default=0.025, gt=0, description="learning rate of the logits, by Adam")


class Famo(Weighting):
    """w_k = K·(z_k/ℓ_k) / Σ(z/ℓ): K times the paper's convex combination."""

    needs_losses = True
    needs_losses_after = True
    settings_type = FamoSettings
    settings: FamoSettings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.saved |= adam_state(self.full(0), "xi")
        self.before: Tensor | None = None  # log-losses of the current step; never in a checkpoint

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        logits = self.saved["xi"][self.setup.index(present)] - self.positive(losses_K).log()
        return len(present) * torch.softmax(logits, 0)

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().update(losses_K, present)
        self.before = self.positive(losses_K).log()

    def update_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        if self.before is None:
            raise RuntimeError("famo: update must be called before update_after")
        delta_K = self.before - self.positive(losses_K).log()
        index = self.setup.index(present)
        xi = self.saved["xi"][index]
        z = torch.softmax(xi, 0)
        slope = z * (delta_K - (z * delta_K).sum()) + self.settings.gamma * xi
        adam_step(self.saved, "xi", index, slope, self.settings.lr)
        self.before = None


WEIGHTING = Famo
