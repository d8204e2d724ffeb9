"""What the report found, as data: the page is drawn from this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onetrunk.eval.budget import Budget, Cost
from onetrunk.eval.feature_map import Embedding
from onetrunk.eval.gradient_agreement import Conflict
from onetrunk.eval.latency import Latency
from onetrunk.eval.outcomes import Key
from onetrunk.eval.similarity import Similarity
from onetrunk.report.pictures import Shown
from onetrunk.report.scores import Score
from onetrunk.report.training import Course
from onetrunk.report.verdict import Compared, Estimate, Verdict


@dataclass(frozen=True)
class Column:
    """One run, or the seeds of one recipe."""

    name: str
    css: str  # class of its colour
    what: str  # trunk, norm, sharing, in words
    separate: bool  # a network for each domain
    seeds: tuple[int, ...]
    finished: int  # of the seeds
    scores: Mapping[Key, Score]
    budgets: Mapping[str, Budget] = field(default_factory=dict)  # by part, "" for one network
    compared: tuple[Compared, ...] = ()
    mean_difference: Estimate | None = None  # of errors in percent, over domains
    decathlon: tuple[float, ...] = ()  # by seed, against the baseline
    delta: tuple[float, ...] = ()

    @property
    def cost(self) -> Cost | None:
        """All of its networks together; operations: of one image of each domain."""
        if not self.budgets:
            return None
        return sum((budget.universal for budget in self.budgets.values()), Cost())

    @property
    def separate_cost(self) -> Cost | None:
        """The same trunk once for each domain: what the one network stands for."""
        if not self.budgets:
            return None
        return sum((budget.separate for budget in self.budgets.values()), Cost())


@dataclass(frozen=True)
class Splits:
    """How a domain's images were divided, and how many could not be read."""

    domain: str
    how: str
    counts: Mapping[str, int]
    bad: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """Everything on the page."""

    made: str  # when, for people
    version: str
    machine: str
    verdict: Verdict
    columns: tuple[Column, ...]
    baseline: Column | None
    splits: tuple[Splits, ...]
    courses: tuple[Course, ...]
    recipes: tuple[tuple[str, str], ...]
    environments: tuple[tuple[str, Mapping[str, Any]], ...]
    images: bool  # whether pictures and names of files may be shown
    latency: Latency | None = None
    shown: tuple[Shown, ...] = ()
    embedding: Embedding | None = None
    similarity: Similarity | None = None
    conflict: Conflict | None = None
    missing: Mapping[str, str] = field(
        default_factory=dict
    )  # part of the page: why it is not there

    @property
    def evaluated(self) -> Column:
        """The column that the verdict is about."""
        return self.columns[self.verdict.evaluated]

    @property
    def domains(self) -> tuple[str, ...]:
        """Of all columns, in order."""
        every = [*self.columns, *([self.baseline] if self.baseline else [])]
        return tuple(dict.fromkeys(domain for column in every for domain, _ in column.scores))
