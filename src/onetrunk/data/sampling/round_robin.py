"""`round-robin`: one batch of each domain per step, so all domains count equally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class RoundRobin:
    """One batch of each domain. An epoch is one pass over the largest domain."""

    joined = False

    def domains(
        self, sizes: Mapping[str, int], step: int, seed: int, temperature: float
    ) -> Sequence[str]:
        """Return all domains."""
        return list(sizes)

    def steps_per_epoch(self, rounds: Sequence[int]) -> int:
        """Return the batches of the largest domain."""
        return max(rounds)


SAMPLER = RoundRobin
