"""Equal weights, w = 1.

A strong baseline if the losses have similar scales (Xin et al. 2022; Kurin et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from onetrunk.train.weighting._base import Weighting


class Equal(Weighting):
    """All weights are 1."""

    uniform = True

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return self.full(1.0)[self.setup.index(present)]


WEIGHTING = Equal
