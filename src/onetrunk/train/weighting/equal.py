"""Every unit counts as much: w = 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Setup
from onetrunk.train.weighting.settings import Nothing, take


class Equal(Method):
    """Hard to beat where the losses' scales are sensible (Xin et al. 2022; Kurin et al. 2022)."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        take(Nothing, settings, "equal")

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return self.each(1.0)[self.setup.of(present)]
