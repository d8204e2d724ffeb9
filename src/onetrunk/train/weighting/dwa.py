"""Dynamic weight average (Liu, Johns & Davison, "End-to-end multi-task learning with attention",
CVPR 2019, arXiv:1803.10704): whose loss falls slowest counts most.

L(t) is a unit's mean loss over window t, the paper's epoch; r = L(t−1)/L(t−2), 1 until there are
two; w = N·softmax(r/T). A unit that a window does not see keeps its ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Setup
from onetrunk.train.weighting.settings import real, take, whole


@dataclass(frozen=True)
class Settings:
    temperature: float = real(2.0, open=True)
    window: int = whole(0)  # steps; 0: an epoch


class Dwa(Method):
    """Needs nothing but the losses that were."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "dwa")
        self.window = self.settings.window or setup.epoch
        self.kept |= {"sum": self.each(), "count": self.each()}
        self.kept |= {"last": self.each(torch.nan), "ratio": self.each(1.0)}

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        shares_N = torch.softmax(self.kept["ratio"] / self.settings.temperature, 0)
        return len(shares_N) * shares_N[self.setup.of(present)]

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().saw(losses_K, present)
        where, kept = self.setup.of(present), self.kept
        kept["sum"][where] += self.known(losses_K)
        kept["count"][where] += 1
        if self.step % self.window:
            return
        mean = kept["sum"] / kept["count"]  # NaN where the unit was not seen
        ratio = mean / kept["last"]
        kept["ratio"].copy_(torch.where(ratio.isnan(), kept["ratio"], ratio))
        kept["last"].copy_(torch.where(mean.isnan(), kept["last"], mean))
        kept["sum"].zero_()
        kept["count"].zero_()
