"""Dynamic weight average (Liu, Johns & Davison, "End-to-end multi-task learning with attention",
CVPR 2019, arXiv:1803.10704): the unit whose loss falls most slowly has the largest weight.

L(t) is a unit's mean loss over window t (an epoch in the paper); r = L(t−1)/L(t−2), 1 until there
are two windows; w = N·softmax(r/T). A unit that is in no step of a window keeps its ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from onetrunk.settings import Settings
from onetrunk.train.weighting._base import Setup, Weighting


class DwaSettings(Settings):
    """Settings of dwa."""

    temperature: float = Field(default=2.0, gt=0, description="T; larger: more equal weights")
    window: int = Field(default=0, ge=0, description="steps in a window; 0: an epoch")


class DynamicWeightAverage(Weighting):
    """Uses the losses of past windows only."""

    settings_type = DwaSettings
    settings: DwaSettings

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.window = self.settings.window or setup.epoch
        self.saved |= {"sum": self.full(0), "count": self.full(0)}
        self.saved |= {"last": self.full(torch.nan), "ratio": self.full(1)}

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        shares_N = torch.softmax(self.saved["ratio"] / self.settings.temperature, 0)
        return len(shares_N) * shares_N[self.setup.index(present)]

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().update(losses_K, present)
        index, saved = self.setup.index(present), self.saved
        saved["sum"][index] += self.positive(losses_K)
        saved["count"][index] += 1
        if self.step % self.window:
            return
        mean = saved["sum"] / saved["count"]  # NaN where the unit was in no step
        ratio = mean / saved["last"]
        saved["ratio"].copy_(torch.where(ratio.isnan(), saved["ratio"], ratio))
        saved["last"].copy_(torch.where(mean.isnan(), saved["last"], mean))
        saved["sum"].zero_()
        saved["count"].zero_()


WEIGHTING = DynamicWeightAverage
