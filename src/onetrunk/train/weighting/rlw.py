"""Random loss weighting (Lin, Ye, Zhang & Tsang, "Reasonable effectiveness of random weighting: a
litmus test for multi-task learning", TMLR 2022, arXiv:2111.10603): w = N·softmax(z), z ~ N(0, 1),
drawn again in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.seeded import seed_of
from onetrunk.train.weighting._base import Setup, Weighting


class RandomLossWeighting(Weighting):
    """The draws depend on seed, step and the unit's name alone."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.keys = [seed_of(setup.seed, unit, "rlw") for unit in setup.units]

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        draws = [
            np.random.Generator(np.random.Philox(key=[key, self.step])).standard_normal()
            for key in self.keys
        ]
        z_N = torch.tensor(draws, dtype=torch.float32, device=self.setup.device)
        return len(draws) * torch.softmax(z_N, 0)[self.setup.index(present)]


WEIGHTING = RandomLossWeighting
