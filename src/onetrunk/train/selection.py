"""Selection of the step with the lowest mean validation error, and early stopping.

Where all tasks are of one kind, the score is the mean of the domains' headline errors (a domain's
error is the mean over its tasks). Percent, metres and degrees cannot be averaged, so where kinds
mix each unit's error is divided by its error at the run's first evaluation, and the score starts
at 1. (This only compares steps of one run; Δ between runs uses a stored baseline.)
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

MIN_FIRST = 1e-3  # lower limit of first errors, so that no unit dominates the score


@dataclass
class Selection:
    """The best evaluation so far; where no domain has labels, the newest one."""

    patience: int = 0  # evaluations without improvement before training ends; 0: no limit
    unlabelled: bool = False  # no domain has labels
    step: int = 0  # of the best evaluation
    score: float = math.inf  # of the best evaluation
    own_best: dict[str, dict[str, float]] = field(default_factory=dict)  # by domain: step, score
    first: dict[str, float] = field(default_factory=dict)  # first errors, by unit
    waited: int = 0  # evaluations since the best one
    last: float = math.inf  # score of the newest evaluation

    def update(self, step: int, table: Table) -> bool:
        """Add an evaluation; return whether it is the best so far."""
        headlines = [row for row in table.rows if row.headline]
        if not headlines and self.unlabelled:
            self.step = step
            return True
        if not headlines:
            raise Failed(
                "no domain has a validation image with a label, so no weights can be chosen"
            )
        for row in headlines:
            self.first.setdefault(unit_of(row), as_error(row.kind, row.value))
        errors = error_by_domain(headlines, self.first)
        for name, error in errors.items():
            if name not in self.own_best or error < self.own_best[name]["score"]:
                self.own_best[name] = {"step": step, "score": error}
        self.last = sum(errors.values()) / len(errors)
        better = self.last < self.score
        if better:
            self.step, self.score, self.waited = step, self.last, 0
        else:
            self.waited += 1
        return better

    @property
    def out_of_patience(self) -> bool:
        """Whether to stop early."""
        return 0 < self.patience <= self.waited

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON."""
        return {
            "step": self.step,
            "score": None if math.isinf(self.score) else self.score,
            "own_best": self.own_best,
            "first": self.first,
            "waited": self.waited,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state from a checkpoint."""
        self.step, self.waited = state["step"], state["waited"]
        self.score = math.inf if state["score"] is None else state["score"]
        self.own_best, self.first = dict(state["own_best"]), dict(state["first"])


def error_by_domain(headlines: Sequence[Row], first: Mapping[str, float]) -> dict[str, float]:
    """Return each domain's error, the mean over its tasks; where kinds mix, relative to `first`."""
    mixed = len({row.kind for row in headlines}) > 1
    errors: dict[str, list[float]] = defaultdict(list)
    for row in headlines:
        scale = max(first[unit_of(row)], MIN_FIRST) if mixed else 1.0
        errors[row.domain].append(as_error(row.kind, row.value) / scale)
    return {name: sum(values) / len(values) for name, values in errors.items()}


def unit_of(row: Row) -> str:
    """Return the unit of a row, "domain/task"."""
    return f"{row.domain}/{row.task}"
