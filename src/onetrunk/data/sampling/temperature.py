"""`temperature`: one batch per step, of a domain drawn with probability ∝ n^(1/T).

T = 1 follows the numbers of images n; with T → ∞ all domains are equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onetrunk.data.seeded import Chance, seed_of


class Temperature:
    """One batch of one domain. An epoch has as many batches as one pass over every domain."""

    joined = False

    def domains(
        self, sizes: Mapping[str, int], step: int, seed: int, temperature: float
    ) -> Sequence[str]:
        """Return the one domain that is drawn for the step."""
        names = sorted(sizes)
        share = np.array([sizes[n] for n in names], np.float64) ** (1 / temperature)
        chance = float(Chance(seed_of(seed, "domain"), step, 0)(0))
        place = np.searchsorted(np.cumsum(share / share.sum()), chance, "right")
        return [names[min(int(place), len(names) - 1)]]

    def steps_per_epoch(self, rounds: Sequence[int]) -> int:
        """Return the batches of all domains."""
        return sum(rounds)


SAMPLER = Temperature
