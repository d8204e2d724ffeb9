"""The choice of one network by validation, with the error that it is uncertain by.

The score of a candidate is its mean error over domains, in percent; where the kinds of tasks
differ, each error is divided by that of the specialist of its domain. From the smallest to the
largest, a candidate replaces the chosen one if its score is lower; a larger one has to be lower by
more than the standard error of the difference (the paired bootstrap over the validation images).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.eval.intervals import replicates
from onetrunk.eval.margins import margin_of, scale_of
from onetrunk.eval.metrics import as_error
from onetrunk.eval.outcomes import Key, Outcomes
from onetrunk.eval.result import EvaluationResult
from onetrunk.eval.table import Row

SMALLEST = 1e-3  # of a specialist's error that others are divided by
SAME_SIZE = 1.02  # ratio of bytes up to which two candidates have the same size
NO_OUTCOMES = 0.5  # points: the standard error where no task has outcomes


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network, evaluated on validation images.

    Args:
        name: The name of its stage.
        bytes: Its size on disk.
        rows: The headlines of its tasks.
        outcomes: What each image contributes to them.
    """

    name: str
    bytes: int
    rows: Sequence[Row]
    outcomes: Outcomes

    @classmethod
    def of(cls, name: str, size: int, result: EvaluationResult) -> Candidate:
        """Return the candidate with this evaluation."""
        return cls(name, size, result.table(intervals=False).headlines(), result.outcomes())

    @property
    def errors(self) -> dict[Key, float]:
        """The error of each task."""
        return {(row.domain, row.task): as_error(row.kind, row.value) for row in self.rows}

    @cached_property
    def replicates(self) -> dict[Key, NDArray[np.float64]]:
        """Bootstrap replicates of the errors, of tasks that have outcomes."""
        kinds = {(row.domain, row.task): row.kind for row in self.rows}
        flat = {k: t for k, t in self.outcomes.tasks.items() if k in kinds}
        if not flat:
            return {}
        drawn = replicates(Outcomes(self.outcomes.split, flat, self.outcomes.image_digests))
        return {
            key: (100 - values if as_error(kinds[key], 1.0) == 99.0 else values)
            for key, values in drawn.items()
        }


@dataclass(frozen=True)
class Comparison:
    """The score of one candidate minus that of another, and its standard error."""

    difference: float
    standard_error: float


class Scale:
    """What errors are divided by, so that their mean has a meaning.

    Args:
        specialists: The evaluation of the specialists.
    """

    def __init__(self, specialists: Candidate) -> None:
        self.mixed = len({row.kind for row in specialists.rows}) > 1
        self._errors = specialists.errors

    def score(self, candidate: Candidate) -> float:
        """Return the score of a candidate; lower is better."""
        return self._mean({key: error / self._of(key) for key, error in candidate.errors.items()})

    def compare(
        self, one: Candidate, other: Candidate, domains: Sequence[str] | None = None
    ) -> Comparison:
        """Compare two candidates, on some or all domains."""
        mine, theirs = one.errors, other.errors
        keys = [k for k in mine if k in theirs and (domains is None or k[0] in domains)]
        difference = self._mean({k: (mine[k] - theirs[k]) / self._of(k) for k in keys})
        drawn = [k for k in keys if k in one.replicates and k in other.replicates]
        if not drawn:
            return Comparison(difference, NO_OUTCOMES / (100 if self.mixed else 1))
        paired = np.stack([(one.replicates[k] - other.replicates[k]) / self._of(k) for k in drawn])
        weights = self._weights(drawn)
        return Comparison(difference, float(np.nanstd(weights @ paired)))

    def _of(self, key: Key) -> float:
        return max(self._errors[key], SMALLEST) if self.mixed else 1.0

    @staticmethod
    def _weights(keys: Sequence[Key]) -> NDArray[np.float64]:
        """Return the weight of each task in the mean over domains of the mean over tasks."""
        names = [domain for domain, _ in keys]
        return np.array([1 / (len(set(names)) * names.count(name)) for name in names])

    def _mean(self, by_task: Mapping[Key, float]) -> float:
        keys = list(by_task)
        return math.fsum(w * by_task[k] for w, k in zip(self._weights(keys), keys, strict=True))


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and why.

    Args:
        reasons: A sentence for each candidate that was compared.
    """

    candidate: Candidate
    reasons: tuple[str, ...]


def choose(candidates: Sequence[Candidate], scale: Scale) -> Choice:
    """Choose one candidate.

    Args:
        candidates: In the order of their training; at least one.
        scale: How errors are averaged.
    """
    ordered = sorted(candidates, key=lambda c: c.bytes)
    chosen, reasons = ordered[0], []
    for other in ordered[1:]:
        found = scale.compare(other, chosen)
        needed = found.standard_error if other.bytes > SAME_SIZE * chosen.bytes else 0.0
        wins = found.difference < -needed
        limit = f", and {needed:.2f} is needed for a larger network" if needed else ""
        reasons.append(
            f"{other.name} {'replaces' if wins else 'does not replace'} {chosen.name}: its "
            f"validation score is {abs(found.difference):.2f} "
            f"{'lower' if found.difference < 0 else 'higher'}{limit}"
        )
        if wins:
            chosen = other
    return Choice(chosen, tuple(reasons))


def lost_domains(one: Candidate, specialists: Candidate, scale: Scale) -> dict[str, str]:
    """Return the domains that one network serves worse than their specialists, with the reason.

    The difference has to exceed the margin of a domain (eval/margins.py) and, beyond it, its
    standard error.
    """
    kinds = {(row.domain, row.task): row for row in specialists.rows}
    lost = {}
    for domain in dict.fromkeys(row.domain for row in specialists.rows):
        found = scale.compare(one, specialists, [domain])
        keys = [key for key in kinds if key[0] == domain]
        margins = []
        for key in keys:
            error = specialists.errors[key]
            margin = margin_of(error, scale_of(kinds[key].unit, None))
            margins.append(margin / (max(error, SMALLEST) if scale.mixed else 1.0))
        margin = math.fsum(margins) / len(margins)
        if found.difference - found.standard_error > margin:
            ours = math.fsum(one.errors[key] for key in keys) / len(keys)
            theirs = math.fsum(specialists.errors[key] for key in keys) / len(keys)
            lost[domain] = (
                f"validation error {ours:.2f} in the one network, {theirs:.2f} in its own"
            )
    return lost


def to_json(candidates: Sequence[Candidate], scale: Scale) -> dict[str, Any]:
    """Return the validation errors of all candidates as plain data."""
    return {
        each.name: {
            "bytes": each.bytes,
            "score": scale.score(each),
            "errors": {"/".join(key): error for key, error in each.errors.items()},
        }
        for each in candidates
    }
