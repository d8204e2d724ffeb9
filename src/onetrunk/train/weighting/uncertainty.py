"""Uncertainty weighting (Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh
losses for scene geometry and semantics", CVPR 2018, arXiv:1705.07115).

A log-variance s of each unit is learned with the network, by the loss e^(−s)·ℓ + s (as in the
paper, except for a factor ½ that it uses for regression alone). At its optimum s = log ℓ: the
weight is 1/ℓ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import Setup, Weighting, adam_state, adam_step


class UncertaintySettings(Settings):
    """Settings of uncertainty."""

    lr: float = Field(default=0.01, gt=0, description="learning rate of the log-variances, by Adam")


class Uncertainty(Weighting):
    """w_u = N·e^(−s_u) / Σ e^(−s): the paper's ratios, with a mean of 1 over the run's units."""

    settings_type = UncertaintySettings
    settings: UncertaintySettings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.saved |= adam_state(self.full(0), "s")

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        shares_N = torch.softmax(-self.saved["s"], 0)
        return len(shares_N) * shares_N[self.setup.index(present)]

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().update(losses_K, present)
        index = self.setup.index(present)
        slope = 1 - torch.exp(-self.saved["s"][index]) * self.positive(losses_K)
        adam_step(self.saved, "s", index, slope, self.settings.lr)


WEIGHTING = Uncertainty
