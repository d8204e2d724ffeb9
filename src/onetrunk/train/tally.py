"""What happened since the last line: mean losses, images by domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from onetrunk.train.clock import Clock

NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass
class Tally:
    """Sums that a checkpoint carries, so that a resumed run writes the same lines."""

    losses: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    taught: dict[str, float] = field(default_factory=dict)  # by "domain features" and the like
    rate: float = 0.0  # the trunk's, in the last step
    since: float = 0.0  # the clock's seconds at the last line

    def add(
        self,
        losses: Mapping[str, float],
        images: Mapping[str, int],
        rate: float,
        taught: Mapping[str, float] = NOTHING,
    ) -> None:
        """One step's."""
        for sums, values in ((self.losses, losses), (self.taught, taught)):
            for unit, loss in values.items():
                sums[unit] = sums.get(unit, 0.0) + loss
        self.counts.update([*losses, *taught])
        self.images.update(images)
        self.rate = rate

    def take(self, clock: Clock) -> dict[str, Any]:
        """A line's worth, and start anew."""
        taught = {unit: total / self.counts[unit] for unit, total in self.taught.items()}
        took = max(clock.seconds - self.since, 1e-9)
        record = {
            "lr": self.rate,
            "loss": {unit: total / self.counts[unit] for unit, total in self.losses.items()},
            **({"taught": taught} if taught else {}),
            "images_per_s": {name: round(n / took, 1) for name, n in self.images.items()},
            "seconds": round(clock.seconds, 3),
            "left_s": round(clock.left, 1),
        }
        self.losses, self.taught, self.counts, self.images = {}, {}, Counter(), Counter()
        self.since = clock.seconds
        return record

    def state(self) -> dict[str, Any]:
        """As JSON takes it."""
        # copies: the sums go on while a state is held
        sums = {"losses": {**self.losses}, "counts": {**self.counts}, "images": {**self.images}}
        sums |= {"taught": {**self.taught}} if self.taught else {}
        return {**sums, "rate": self.rate, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.losses, self.rate = dict(state["losses"]), state["rate"]
        self.taught = dict(state.get("taught", {}))
        self.counts, self.images = Counter(state["counts"]), Counter(state["images"])
        self.since = state["since"]
