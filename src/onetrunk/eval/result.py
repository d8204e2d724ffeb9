"""The result of evaluating a split: a table of scores, outcomes of every image, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.intervals import interval
from onetrunk.eval.metrics import metrics_of
from onetrunk.eval.metrics.by_class import ClassScores, macro_mean, weighted_mean
from onetrunk.eval.metrics.calibration import Reliability
from onetrunk.eval.metrics.confusion import Confusion, ConfusionMatrix
from onetrunk.eval.metrics.image import Embed
from onetrunk.eval.metrics.scores import Scores
from onetrunk.eval.outcomes import Key, Outcomes, TaskOutcomes, digest_names
from onetrunk.eval.table import Row, Table
from onetrunk.progress import say

CONFUSIONS = 10  # pairs of classes that are listed by default
WORST = 20  # images that are listed by default


@dataclass(frozen=True)
class WorstImage:
    """An image whose prediction is among the worst of its split.

    Args:
        file: The name of the image in its source: for folders, the path below the folder.
        given: The label, or numbers; empty for maps.
        predicted: The prediction, or for maps how far it is off.
        confidence: The probability of the predicted class.
        error: How wrong it is: the loss of classes and labels; standard deviations of numbers;
            1 − mean IoU; the mean error of depths and normals.
        place: Its place in the split.
    """

    file: str
    given: str
    predicted: str
    confidence: float | None
    error: float
    place: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


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

    def confusion(self) -> ConfusionMatrix | None:
        """Return the confusion matrix; None for other kinds than `classify`, or without images."""
        return self.scores.confusion() if self.scores.count else None

    def confusions(self, limit: int = CONFUSIONS) -> list[Confusion]:
        """Return the pairs of classes that are confused most often, by number of images."""
        matrix = self.confusion()
        return [] if matrix is None else matrix.pairs(limit)

    def per_class(self) -> tuple[ClassScores, ...]:
        """Return the scores of each class; none for a kind without classes, or without images."""
        return self.scores.per_class() if self.scores.count else ()

    def reliability(self) -> Reliability | None:
        """Return confidence against accuracy; None for other kinds than `classify`."""
        return self.scores.reliability() if self.scores.count else None

    def worst(self, limit: int = WORST) -> list[WorstImage]:
        """Return the images with the worst predictions, the worst first.

        Of classes and labels, only images with a wrong prediction are listed. Embeddings have none.
        """
        if limit < 1:
            raise BadInput("expected a limit of at least one image", got=limit)
        errors = self.scores.image_errors() if self.scores.count else None
        if errors is None:
            return []
        ranked = np.argsort(np.where(np.isnan(errors), np.inf, -errors), kind="stable")
        worst = ranked[: min(limit, int((~np.isnan(errors)).sum()))]
        return [
            WorstImage(
                file=self.split.key(place),
                given=one.given,
                predicted=one.predicted,
                confidence=one.confidence,
                error=error,
                place=place,
            )
            for place, error, one in zip(
                self.order[worst].tolist(),
                errors[worst].tolist(),
                self.scores.predictions(worst.tolist()),
                strict=True,
            )
        ]

    def details(self) -> dict[str, Any]:
        """Return classes, confusion matrix, reliability and worst images as plain data."""
        classes, matrix, bins = self.per_class(), self.confusion(), self.reliability()
        found: dict[str, Any] = {}
        if classes:
            found["classes"] = [one.to_json() for one in classes]
            found["means"] = [one(classes).to_json() for one in (macro_mean, weighted_mean)]
        if matrix is not None:
            found["confusion"] = matrix.to_json()
        if bins is not None:
            found["reliability"] = bins.to_json()
        return {**found, "worst": [image.to_json() for image in self.worst()]}


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

    def details(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return `TaskResult.details` by domain and task."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for result in self.tasks:
            if result.scores.count:
                found.setdefault(result.domain, {})[result.task.name] = result.details()
        return found
