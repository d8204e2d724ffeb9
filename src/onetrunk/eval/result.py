"""The result of evaluating a split: a table of scores, outcomes of every image, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.eval.intervals import interval
from onetrunk.eval.metrics import metrics_of
from onetrunk.eval.metrics.image import Classify, Embed
from onetrunk.eval.metrics.scores import Scores
from onetrunk.eval.outcomes import Key, Outcomes, TaskOutcomes, digest_names
from onetrunk.eval.table import Row, Table
from onetrunk.progress import say

CONFUSIONS = 10  # pairs of classes that are listed by default
NO_CLASS = "(none of the classes)"  # a prediction of an external model that is not a class


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were predicted as another: number and share of the true class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass
class TaskResult:
    """One task of one domain: the scores of a split's images, in the order of evaluation."""

    domain: str
    task: Task
    split: Split
    scores: Scores
    order: NDArray[np.int64]  # the place in the split of each image, in the order of evaluation

    def outcomes(self) -> TaskOutcomes | None:
        """Return each image's outcome in the order of the split; None if it is undefined."""
        if not self.scores.count:
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for name, values in self.scores.per_image().items():
            if not values.size:  # all targets are equal: no output has a standard deviation
                return None
            arrays[name] = np.empty_like(values, np.int32 if name == "areas" else np.float64)
            arrays[name][self.order] = values
        return TaskOutcomes(self.task.kind, arrays) if arrays else None

    def rows(self, intervals: bool = True, quiet: bool = False) -> list[Row]:
        """Return a row for each metric, the headline first.

        Where the headline is undefined there are no rows; a note with the reason is printed, unless
        `quiet`.
        """
        values, split = self.scores.compute(), self.split.name
        metrics = metrics_of(self.task)
        where = f"{self.domain}/{self.task.name}"
        if metrics[0].name not in values:
            if not quiet:
                say(f"{where} is left out: {split} lacks {self.scores.needs}")
            return []
        if isinstance(self.scores, Embed) and self.scores.single and not quiet:
            say(
                f"{where}: {self.scores.single} {split} images are the only ones of their class, "
                "so they are not queries"
            )
        outcomes = self.outcomes() if intervals else None
        low, high = (None, None) if outcomes is None else interval(self.domain, outcomes)
        return [
            Row(
                domain=self.domain,
                task=self.task.name,
                metric=metric.name,
                value=values[metric.name],
                count=self.scores.count,
                kind=self.task.kind,
                unit=metric.unit,
                better=metric.better,
                headline=metric is metrics[0],
                low=low if metric is metrics[0] else None,
                high=high if metric is metrics[0] else None,
            )
            for metric in metrics
            if metric.name in values
        ]

    def confusions(self, limit: int = CONFUSIONS) -> list[Confusion]:
        """Return the pairs of classes that are confused most often, by number of images."""
        if not isinstance(self.scores, Classify) or not self.scores.count:
            return []
        true, predicted = self.scores.pairs()
        classes = (*self.task.classes, NO_CLASS)
        counts_of_class = np.bincount(true, minlength=len(classes))
        wrong = np.stack([true, predicted])[:, true != predicted]
        pairs, counts = np.unique(wrong, axis=1, return_counts=True)
        confusions = [
            Confusion(classes[t], classes[p], int(n), float(n / counts_of_class[t]))
            for (t, p), n in zip(pairs.T, counts, strict=True)
        ]
        return sorted(confusions, key=lambda c: (-c.count, -c.share))[:limit]


@dataclass(frozen=True)
class EvaluationResult:
    """The results of all tasks of all domains on a split."""

    split: str
    tasks: Sequence[TaskResult]
    quiet: bool = False  # whether nothing is printed about what is left out
    views: str = ""  # the views that maps are averaged over, in words

    def table(self, intervals: bool = True) -> Table:
        """Return the table of scores, without tasks whose headline is undefined."""
        rows = [row for task in self.tasks for row in task.rows(intervals, self.quiet)]
        return Table(tuple(rows), self.split, self.views)

    def outcomes(self) -> Outcomes:
        """Return what each image contributes to the headlines."""
        tasks: dict[Key, TaskOutcomes] = {}
        digests: dict[str, str] = {}
        for result in self.tasks:
            outcomes = result.outcomes()
            if outcomes is not None:
                tasks[result.domain, result.task.name] = outcomes
                if result.domain not in digests:
                    digests[result.domain] = digest_names(result.split)
        return Outcomes(self.split, tasks, digests)

    def confusions(self, limit: int = CONFUSIONS) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return the most confused pairs of classes, by domain and `classify` task."""
        confusions: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for result in self.tasks:
            if result.task.kind == "classify":
                pairs = [asdict(pair) for pair in result.confusions(limit)]
                confusions.setdefault(result.domain, {})[result.task.name] = pairs
        return confusions
