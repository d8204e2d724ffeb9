"""Which step's weights are kept: the lowest mean validation error, and when to stop waiting.

Where all tasks are of one kind the score is the mean of the domains' headline errors (a domain's
own is the mean over its tasks). Where kinds mix, percent, metres and degrees have no mean: each
unit's error is divided by its own at the run's first evaluation, so that the score starts at 1.
(This weighs the units against each other within a run; Δ between runs has a stored baseline.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onetrunk.errors import Failed
from onetrunk.measure.scores import as_error
from onetrunk.measure.table import Table

SMALLEST = 1e-3  # a first error below this would weigh its unit without bound


@dataclass
class Selection:
    """The best evaluation so far."""

    patience: int = 0  # evaluations without a better one before training ends; 0: never
    step: int = 0
    score: float = math.inf
    own: dict[str, dict[str, float]] = field(default_factory=dict)  # each domain's own best
    first: dict[str, float] = field(default_factory=dict)  # the units' first errors
    waited: int = 0

    def see(self, step: int, table: Table) -> bool:
        """Take an evaluation in; is it the best?"""
        heads = [row for row in table.rows if row.headline]
        if not heads:
            raise Failed(
                "no domain has a validation image with a label, so no weights can be chosen"
            )
        mixed = len({row.kind for row in heads}) > 1
        by_domain: dict[str, list[float]] = defaultdict(list)
        for row in heads:
            error = as_error(row.kind, row.value)
            first = self.first.setdefault(f"{row.domain}/{row.task}", error)
            by_domain[row.domain].append(error / max(first, SMALLEST) if mixed else error)
        means = {name: sum(errors) / len(errors) for name, errors in by_domain.items()}
        for name, value in means.items():
            if name not in self.own or value < self.own[name]["score"]:
                self.own[name] = {"step": step, "score": value}
        self.last = sum(means.values()) / len(means)
        better = self.last < self.score
        if better:
            self.step, self.score, self.waited = step, self.last, 0
        else:
            self.waited += 1
        return better

    last: float = math.inf  # the newest evaluation's score

    @property
    def enough(self) -> bool:
        """Whether to stop early."""
        return 0 < self.patience <= self.waited

    def state(self) -> dict[str, Any]:
        """As JSON takes it."""
        score = None if math.isinf(self.score) else self.score
        state = {"step": self.step, "score": score, "own": self.own, "first": self.first}
        return {**state, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step, self.waited = state["step"], state["waited"]
        self.score = math.inf if state["score"] is None else state["score"]
        self.own, self.first = dict(state["own"]), dict(state["first"])
