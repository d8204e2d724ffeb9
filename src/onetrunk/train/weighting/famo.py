"""Fast adaptive multitask optimization (Liu, Feng, Stone & Liu, "FAMO", NeurIPS 2023,
arXiv:2306.03792): all losses shall fall at the same rate, without any unit's own gradient.

Logits ξ give z = softmax(ξ); the step descends c·Σ z_u·log ℓ_u, c = 1/Σ(z_u/ℓ_u), a convex
combination of the gradients. Then δ_u = log ℓ_u − log ℓ_u' says how much each loss has fallen in
this step, and ξ descends along (∂z/∂ξ)ᵀδ + γξ by Adam: who fell most counts less. The losses ℓ' of
the same batches after the step cost one more forward pass.
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
    gamma: float = real(1e-3)  # decay of the logits
    lr: float = real(0.025, open=True)  # of the logits


class Famo(Method):
    """w_k = K·(z_k/ℓ_k) / Σ(z/ℓ): K times the paper's convex combination."""

    needs: ClassVar[Needs] = "after"

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "famo")
        self.kept |= lwf(self.each(), "xi")
        self.before: Tensor | None = None  # of the step that is under way; never in a checkpoint

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        logits = self.kept["xi"][self.setup.of(present)] - self.known(losses_K).log()
        return len(present) * torch.softmax(logits, 0)

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().saw(losses_K, present)
        self.before = self.known(losses_K).log()

    def saw_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        if self.before is None:
            raise RuntimeError("famo is told the losses of a step before those after it")
        fell_K = self.before - self.known(losses_K).log()
        where = self.setup.of(present)
        xi = self.kept["xi"][where]
        z = torch.softmax(xi, 0)
        slope = z * (fell_K - (z * fell_K).sum()) + self.settings.gamma * xi
        descend(self.kept, "xi", where, slope, self.settings.lr)
        self.before = None
