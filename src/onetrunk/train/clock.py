"""Where in its training a run is, and what is due: lines, evaluations, the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onetrunk.config import Train

EVALUATIONS = 10  # in a run, where the recipe does not say
LINES = 100
MOST = 50  # steps between lines


@dataclass
class Clock:
    """Counts steps, or hours. Time stands still within a step."""

    steps: int  # 0: hours decide
    hours: float
    evaluate: int  # steps between evaluations; 0: EVALUATIONS of them
    log: int
    step: int = 0
    seconds: float = 0.0  # of training, those before a restart included
    tenth: int = 0  # evaluations that hours made due so far
    began: float = 0.0

    @classmethod
    def of(cls, train: Train, steps_per_epoch: int) -> Clock:
        """As the settings say; an epoch is one pass over the largest domain."""
        steps = train.steps or 0
        if train.epochs is not None:
            # the loader's steps make one of ours each, or `accumulate` of them do
            steps = max(1, round(train.epochs * steps_per_epoch / train.accumulate))
        every = train.eval_every or (max(1, steps // EVALUATIONS) if steps else 0)
        log = train.log_every or (max(1, min(MOST, steps // LINES)) if steps else MOST)
        return cls(steps, train.hours or 0.0, every, log)

    def start(self) -> None:
        """From here on the seconds count."""
        self.began = time.monotonic() - self.seconds

    def tick(self) -> None:
        """One step is done."""
        self.step += 1
        self.seconds = time.monotonic() - self.began

    @property
    def progress(self) -> float:
        """The share of the training that lies behind, 0 to 1."""
        if self.steps:
            return self.step / self.steps
        return min(1.0, self.seconds / (3600 * self.hours))

    @property
    def over(self) -> bool:
        """Whether this was the last step."""
        return self.progress >= 1

    @property
    def log_due(self) -> bool:
        """Whether a line is due after this step."""
        return self.over or self.step % self.log == 0

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation is due after this step; asked once a step."""
        if self.evaluate:
            return self.over or self.step % self.evaluate == 0
        before, self.tenth = self.tenth, int(self.progress * EVALUATIONS)
        return self.tenth > before

    @property
    def left(self) -> float:
        """Seconds to go, at the pace so far."""
        done = max(self.progress, 1e-9)
        return self.seconds * (1 - done) / done

    @property
    def described(self) -> str:
        """The whole, for people."""
        return f"{self.steps:,}" if self.steps else f"{self.hours:g} hours"

    def state(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"step": self.step, "seconds": self.seconds, "tenth": self.tenth}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step, self.seconds, self.tenth = state["step"], state["seconds"], state["tenth"]
