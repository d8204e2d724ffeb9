"""Which step's weights are kept: the lowest mean validation error, and when to stop waiting.

Where all tasks are of one kind the score is the mean of the domains' headline errors (a domain's
own is the mean over its tasks). Where kinds mix, percent, metres and degrees have no mean: each
unit's error is divided by its own at the run's first evaluation, so that the score starts at 1.
(This weighs the units against each other within a run; Δ between runs has a stored baseline.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onetrunk.errors import Failed
from onetrunk.eval.metrics import as_error
from onetrunk.eval.table import Row, Table

SMALLEST = 1e-3  # a first error below this would weigh its unit without bound


@dataclass
class Selection:
    """The best evaluation so far; where no domain has labels, the newest."""

    patience: int = 0  # evaluations without a better one before training ends; 0: never
    blind: bool = False  # no domain has labels
    step: int = 0
    score: float = math.inf
    own: dict[str, dict[str, float]] = field(default_factory=dict)  # each domain's own best
    first: dict[str, float] = field(default_factory=dict)  # the units' first errors
    waited: int = 0
    last: float = math.inf  # the newest evaluation's score

    def see(self, step: int, table: Table) -> bool:
        """Take an evaluation in; is it the best?"""
        heads = [row for row in table.rows if row.headline]
        if not heads and self.blind:
            self.step = step
            return True
        if not heads:
            raise Failed(
                "no domain has a validation image with a label, so no weights can be chosen"
            )
        for row in heads:
            self.first.setdefault(unit(row), as_error(row.kind, row.value))
        means = by_domain(heads, self.first)
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


def by_domain(heads: Sequence[Row], ones: Mapping[str, float]) -> dict[str, float]:
    """Each domain's error, the mean over its tasks; where kinds mix, in multiples of `ones`."""
    mixed = len({row.kind for row in heads}) > 1
    found: dict[str, list[float]] = defaultdict(list)
    for row in heads:
        one = max(ones[unit(row)], SMALLEST) if mixed else 1.0
        found[row.domain].append(as_error(row.kind, row.value) / one)
    return {name: sum(errors) / len(errors) for name, errors in found.items()}


def unit(row: Row) -> str:
    """Of which (domain, task) a row is."""
    return f"{row.domain}/{row.task}"
