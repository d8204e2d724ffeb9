"""Weights by uncertainty (Kendall, Gal & Cipolla, "Multi-task learning using uncertainty to weigh
losses for scene geometry and semantics", CVPR 2018, arXiv:1705.07115).

Of each unit a log-variance s is learned with the network, by the loss e^(−s)·ℓ + s (the paper's,
but for a factor ½ that it has for regression alone). At its optimum s = log ℓ: the weight is 1/ℓ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onetrunk.train.weighting.adam import descend, lwf
from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Setup
from onetrunk.train.weighting.settings import real, take


@dataclass(frozen=True)
class Settings:
    lr: float = real(0.01, open=True)  # of the log-variances, by Adam


class Uncertainty(Method):
    """w_u = N·e^(−s_u) / Σ e^(−s): the paper's ratios, with a mean of 1 over the run's units."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        self.settings = take(Settings, settings, "uncertainty")
        self.kept |= lwf(self.each(), "s")

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        shares_N = torch.softmax(-self.kept["s"], 0)
        return len(shares_N) * shares_N[self.setup.of(present)]

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        super().saw(losses_K, present)
        where = self.setup.of(present)
        slope = 1 - torch.exp(-self.kept["s"][where]) * self.known(losses_K)
        descend(self.kept, "s", where, slope, self.settings.lr)
