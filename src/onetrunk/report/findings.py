"""The content of the report as data, from which the page is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onetrunk.eval.feature_map import FeatureMap
from onetrunk.eval.gradient_agreement import GradientAgreement
from onetrunk.eval.latency import Latency
from onetrunk.eval.outcomes import Key
from onetrunk.eval.similarity import Similarity
from onetrunk.report.class_errors import TaskErrors
from onetrunk.report.columns import Column, Score
from onetrunk.report.curves import TaskCurves
from onetrunk.report.examples import TaskExamples
from onetrunk.report.verdict import Verdict


@dataclass(frozen=True)
class DomainSplits:
    """The number of images in a domain's splits, and how many could not be read."""

    domain: str
    method: str  # how the images were divided
    counts: Mapping[str, int]
    bad: Mapping[str, int]


@dataclass(frozen=True)
class Measurements:
    """What was measured on the evaluated network; None where that was not possible."""

    examples: tuple[TaskExamples, ...] = ()
    errors: tuple[TaskErrors, ...] = ()
    similarity: Similarity | None = None
    feature_map: FeatureMap | None = None
    gradient_agreement: GradientAgreement | None = None
    latency: Latency | None = None


@dataclass(frozen=True)
class Findings:
    """Everything on the page.

    Args:
        created: Date and time of the report.
        chosen: The column that was chosen when the report was made, BASELINE, or None.
        notes: Sentences on that choice.
        curves: Training curves by task.
        floors: Scores of predictions that need no training, by name of the floor.
        recipes: Name and text of each recipe.
        environments: Name and environment.json of each run.
        images: Whether images and file names may be shown.
        missing: Parts that are left out, with the reason.
    """

    created: str
    version: str
    machine: str
    verdict: Verdict
    columns: tuple[Column, ...]
    baseline: Column | None
    splits: tuple[DomainSplits, ...]
    curves: tuple[TaskCurves, ...]
    recipes: tuple[tuple[str, str], ...]
    environments: tuple[tuple[str, Mapping[str, Any]], ...]
    images: bool
    chosen: int | None = None
    notes: tuple[str, ...] = ()
    floors: Mapping[str, Mapping[Key, Score]] = field(default_factory=dict)
    measured: Measurements = Measurements()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def evaluated(self) -> Column:
        """The column that the verdict is about."""
        return self.columns[self.verdict.evaluated]

    def is_chosen(self, column: Column) -> bool:
        """Return whether this column was chosen when the report was made."""
        return self.chosen is not None and column is self.column(self.chosen)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The columns, with the baseline last."""
        return (*self.columns, *([self.baseline] if self.baseline else []))

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of all columns, in order."""
        keys = [key for column in self.all_columns for key in column.scores]
        return tuple(dict.fromkeys(domain for domain, _ in keys))

    def column(self, index: int) -> Column:
        """Return a column by its index; −1 is the baseline."""
        return self.all_columns[index]

    def title(self, column: Column) -> str:
        """Return a column's heading: its role if that is clear, else its name."""
        if len(self.columns) == 1 and not column.separate and column is not self.baseline:
            return "one network"
        if column is self.baseline and column.separate:
            return "separate networks"
        return column.name
