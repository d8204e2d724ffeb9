"""What one pass over a split found: as a table, as outcomes of every image, as confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.eval.accumulator import Scores
from onetrunk.eval.image_metrics import Classify, Embed
from onetrunk.eval.intervals import interval
from onetrunk.eval.metrics import metrics_of
from onetrunk.eval.outcomes import Key, Outcomes, Part, digest
from onetrunk.eval.table import Row, Table
from onetrunk.progress import say

PAIRS = 10  # of a task's confusions, where nobody says how many
OTHER = "(none of the classes)"  # what someone else's model may say


@dataclass(frozen=True)
class Confused:
    """Images of one class taken for another: how many, and their share of the true class's."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass
class TaskResult:
    """One task of one domain after its whole split: scores of images in order of arrival."""

    domain: str
    task: Task
    split: Split
    scores: Scores
    order: NDArray[np.int64]  # each arrival's place in the split

    def part(self) -> Part | None:
        """What each image adds to the headline, in the split's order; None where there is none."""
        if not self.scores.count:
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for name, got in self.scores.parts().items():
            if not got.size:  # numbers that are all the same: no output has a standard deviation
                return None
            arrays[name] = np.empty_like(got, np.int32 if name == "areas" else np.float64)
            arrays[name][self.order] = got
        return Part(self.task.kind, arrays) if arrays else None

    def rows(self, intervals: bool = True, quiet: bool = False) -> list[Row]:
        """A row for each metric, the headline first; none, and a line, where it is not defined."""
        values, split = self.scores.compute(), self.split.name
        metrics = metrics_of(self.task)
        where = f"{self.domain}/{self.task.name}"
        if metrics[0].name not in values:
            if not quiet:
                say(f"{where}: {split} has {_lack(self.task)}: left out")
            return []
        if isinstance(self.scores, Embed) and self.scores.lonely and not quiet:
            count = self.scores.lonely
            say(f"{where}: {count} {split} images have no other of their class: not asked for")
        part = self.part() if intervals else None
        span = (None, None) if part is None else interval(self.domain, part)
        return [
            Row(
                self.domain,
                self.task.name,
                metric.name,
                values[metric.name],
                self.scores.count,
                self.task.kind,
                metric.unit,
                metric.better,
                place == 0,
                *(span if place == 0 else (None, None)),
            )
            for place, metric in enumerate(metrics)
            if metric.name in values
        ]

    def confused(self, most: int) -> list[Confused]:
        """The pairs of classes that are confused most often, by number of images."""
        if not isinstance(self.scores, Classify) or not self.scores.count:
            return []
        true, best = self.scores.pairs()
        classes = (*self.task.classes, OTHER)
        each = np.bincount(true, minlength=len(classes))
        pairs, counts = np.unique(
            np.stack([true, best])[:, true != best], axis=1, return_counts=True
        )
        found = [
            Confused(classes[t], classes[p], int(n), float(n / each[t]))
            for (t, p), n in zip(pairs.T, counts, strict=True)
        ]
        return sorted(found, key=lambda c: (-c.count, -c.share))[:most]


@dataclass(frozen=True)
class EvaluationResult:
    """All tasks of all domains of a split, after one pass."""

    split: str
    tasks: Sequence[TaskResult]
    quiet: bool = False  # about what is left out
    views: str = ""  # what each map is averaged over, where it is

    def table(self, intervals: bool = True) -> Table:
        """The table of scores; tasks whose headline is not defined here are left out, and said."""
        rows: list[Row] = []
        for one in self.tasks:
            rows += one.rows(intervals, self.quiet)
        return Table(tuple(rows), self.split, self.views)

    def outcomes(self) -> Outcomes:
        """What every image adds to the headlines."""
        parts: dict[Key, Part] = {}
        names: dict[str, str] = {}
        for one in self.tasks:
            part = one.part()
            if part is not None:
                parts[one.domain, one.task.name] = part
                if one.domain not in names:
                    names[one.domain] = digest(one.split)
        return Outcomes(self.split, parts, names)

    def confusions(self, most: int = PAIRS) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """By domain and classify task the most confused pairs: true, predicted, count, share."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for one in self.tasks:
            if one.task.kind == "classify":
                pairs = [asdict(pair) for pair in one.confused(most)]
                found.setdefault(one.domain, {})[one.task.name] = pairs
        return found


def _lack(task: Task) -> str:
    """What a split lacks whose headline is not defined."""
    if task.kind == "embed":
        return "no two labelled images of one class"
    if task.kind == "regress":
        return "no labelled images whose numbers differ"
    return "no image with a label"
