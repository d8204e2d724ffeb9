"""The clock of a run (progress, and what is due), and running means since the last log line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from onetrunk.config import Train

EVALUATIONS = 10  # in a run, if the recipe sets no interval
LINES = 100  # log lines in a run, if the recipe sets no interval
MAX_LOG_INTERVAL = 50  # steps


@dataclass
class Clock:
    """Counts steps and seconds. The seconds change only between steps."""

    steps: int  # length of the run; 0: limited by hours
    hours: float
    evaluate: int  # steps between evaluations; 0: EVALUATIONS of them, by progress
    log: int  # steps between log lines
    step: int = 0
    seconds: float = 0.0  # of training, including those before a restart
    tenth: int = 0  # evaluations that became due by progress
    began: float = 0.0

    @classmethod
    def of(cls, train: Train, steps_per_epoch: int) -> Clock:
        """Return the clock for these settings; an epoch is one pass over the largest domain."""
        steps = train.steps or 0
        if train.epochs is not None:
            # `accumulate` steps of the loader make one step of training
            steps = max(1, round(train.epochs * steps_per_epoch / train.accumulate))
        interval = max(1, steps // EVALUATIONS) if steps else 0
        lines = max(1, min(MAX_LOG_INTERVAL, steps // LINES)) if steps else MAX_LOG_INTERVAL
        return cls(
            steps, train.hours or 0.0, train.eval_every or interval, train.log_every or lines
        )

    def start(self) -> None:
        """Start or continue counting seconds."""
        self.began = time.monotonic() - self.seconds

    def tick(self) -> None:
        """Count one finished step."""
        self.step += 1
        self.seconds = time.monotonic() - self.began

    @property
    def progress(self) -> float:
        """The finished share of the training, 0 to 1."""
        if self.steps:
            return self.step / self.steps
        return min(1.0, self.seconds / (3600 * self.hours))

    @property
    def over(self) -> bool:
        """Whether the last step is done."""
        return self.progress >= 1

    @property
    def log_due(self) -> bool:
        """Whether a log line is due after this step."""
        return self.over or self.step % self.log == 0

    def evaluation_due(self) -> bool:
        """Return whether an evaluation is due after this step; call it once a step."""
        if self.evaluate:
            return self.over or self.step % self.evaluate == 0
        before, self.tenth = self.tenth, int(self.progress * EVALUATIONS)
        return self.tenth > before

    @property
    def left(self) -> float:
        """The estimated remaining seconds."""
        done = max(self.progress, 1e-9)
        return self.seconds * (1 - done) / done

    @property
    def length(self) -> str:
        """The length of the run, for messages: "4,000" steps or "2 hours"."""
        return f"{self.steps:,}" if self.steps else f"{self.hours:g} hours"

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON."""
        return {"step": self.step, "seconds": self.seconds, "tenth": self.tenth}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self.step, self.seconds, self.tenth = state["step"], state["seconds"], state["tenth"]


@dataclass
class Means:
    """Running means since the last log line; saved, so that a resumed run logs the same lines."""

    losses: dict[str, float] = field(default_factory=dict)  # sums, by "domain/task"
    distilled: dict[str, float] = field(default_factory=dict)  # sums, by "domain features" etc.
    counts: Counter[str] = field(default_factory=Counter)  # of the values in both sums
    images: Counter[str] = field(default_factory=Counter)  # by domain
    rate: float = 0.0  # the trunk's learning rate in the last step
    since: float = 0.0  # the clock's seconds at the last line

    def add(
        self,
        losses: Mapping[str, float],
        images: Mapping[str, int],
        rate: float,
        distilled: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Add the values of one step."""
        for sums, values in ((self.losses, losses), (self.distilled, distilled)):
            for key, loss in values.items():
                sums[key] = sums.get(key, 0.0) + loss
            self.counts.update(values.keys())
        self.images.update(images)
        self.rate = rate

    def take(self, clock: Clock) -> dict[str, Any]:
        """Return the fields of a log line, and reset the means."""
        distilled = {key: total / self.counts[key] for key, total in self.distilled.items()}
        seconds = max(clock.seconds - self.since, 1e-9)
        record = {
            "lr": self.rate,
            "loss": {unit: total / self.counts[unit] for unit, total in self.losses.items()},
            **({"distilled": distilled} if distilled else {}),
            "images_per_s": {name: round(n / seconds, 1) for name, n in self.images.items()},
            "seconds": round(clock.seconds, 3),
            "left_s": round(clock.left, 1),
        }
        self.losses, self.distilled, self.counts, self.images = {}, {}, Counter(), Counter()
        self.since = clock.seconds
        return record

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON."""
        # copied, because the sums may change before the state is written
        sums = {"losses": {**self.losses}, "distilled": {**self.distilled}}
        counts = {"counts": {**self.counts}, "images": {**self.images}}
        return {**sums, **counts, "rate": self.rate, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self.losses, self.distilled = dict(state["losses"]), dict(state["distilled"])
        self.counts, self.images = Counter(state["counts"]), Counter(state["images"])
        self.rate, self.since = state["rate"], state["since"]
