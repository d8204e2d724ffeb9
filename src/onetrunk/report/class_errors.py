"""Where the evaluated network errs: classes, confusions, calibration, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onetrunk.data.domain import Domain
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.eval.metrics.by_class import (
    ClassScores,
    macro_mean,
    shown_fields,
    weighted_mean,
)
from onetrunk.eval.metrics.confusion import Confusion
from onetrunk.eval.result import TaskResult, WorstImage
from onetrunk.nn.universal import Universal
from onetrunk.report.class_charts import (
    ConfusionChart,
    ReliabilityChart,
    confusion_chart,
    reliability_chart,
)
from onetrunk.report.thumbnail import Thumbnail

SAMPLE = 5000  # test images of a domain, at most
WORST = 16  # images of a task
ROWS = 60  # classes in a table; of more, those with the lowest F1
PAIRS = 5
HEADINGS = {
    "label": "class",
    "support": "images",
    "f1": "F1",
    "average_precision": "average precision",
    "iou": "IoU",
}


@dataclass(frozen=True)
class ClassTable:
    """Scores by class as text; shares in percent.

    Args:
        classes: The number of classes, of which `rows` may be those with the lowest scores only.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    means: tuple[tuple[str, ...], ...]
    classes: int
    weakest: str  # the class with the lowest score, and its score


@dataclass(frozen=True)
class WorstExample:
    """One of the worst images with its thumbnail."""

    image: WorstImage
    thumbnail: Thumbnail


@dataclass(frozen=True)
class TaskErrors:
    """The errors of one task on the test images, or on a random sample of them."""

    domain: str
    task: str
    kind: str
    images: int
    total: int
    table: ClassTable | None
    confusion: ConfusionChart | None
    pairs: tuple[Confusion, ...]
    reliability: ReliabilityChart | None
    calibration_error: float | None
    worst: tuple[WorstExample, ...]


def class_errors(
    models: Mapping[str, Universal], domains: Sequence[Domain], *, images: bool = True
) -> tuple[TaskErrors, ...]:
    """Evaluate the test images, at most 5,000 of each domain, and return what there is to show.

    Args:
        images: Whether images and file names may be shown.
    """
    result = evaluate_split(models, domains, "test", sample=SAMPLE)
    totals = {domain.name: len(domain.test) for domain in domains}
    found = [_task_errors(one, totals[one.domain], images) for one in result.tasks]
    return tuple(one for one in found if one.table or one.worst)


def _task_errors(result: TaskResult, total: int, images: bool) -> TaskErrors:
    name = f"{result.domain}/{result.task.name}"
    matrix, bins = result.confusion(), result.reliability()
    worst = result.worst(WORST) if images else []
    return TaskErrors(
        domain=result.domain,
        task=result.task.name,
        kind=result.task.kind,
        images=len(result.split),
        total=total,
        table=class_table(result.per_class()),
        confusion=confusion_chart(matrix, f"confusion matrix of {name}") if matrix else None,
        pairs=tuple(result.confusions(PAIRS)),
        reliability=reliability_chart(bins, f"reliability diagram of {name}") if bins else None,
        calibration_error=100 * bins.calibration_error if bins else None,
        worst=_with_thumbnails(result, worst),
    )


def class_table(classes: Sequence[ClassScores]) -> ClassTable | None:
    """Return the scores of classes as text; None without classes."""
    if not classes:
        return None
    names = shown_fields(classes)
    score = "iou" if "iou" in names else "f1" if "f1" in names else "recall"

    def rank(one: ClassScores) -> float:
        value = getattr(one, score)
        return np.inf if value is None or not one.support else float(value)

    shown = classes
    if len(classes) > ROWS:
        lowest = {id(one) for one in sorted(classes, key=rank)[:ROWS]}
        shown = [one for one in classes if id(one) in lowest]
    low = min(classes, key=rank)
    word = HEADINGS.get(score, score)
    support = "pixels" if "iou" in names else "images"
    return ClassTable(
        headings=tuple(support if n == "support" else HEADINGS.get(n, n) for n in names),
        rows=tuple(tuple(_cell(one, name) for name in names) for one in shown),
        means=tuple(
            tuple(_cell(mean, name) for name in names)
            for mean in (macro_mean(classes), weighted_mean(classes))
        ),
        classes=len(classes),
        weakest=f"{low.label}, {word} {_cell(low, score)} %" if np.isfinite(rank(low)) else "",
    )


def _cell(one: ClassScores, name: str) -> str:
    value = getattr(one, name)
    if isinstance(value, float):
        return f"{100 * value:.1f}"
    return "–" if value is None else value if isinstance(value, str) else f"{value:,}"


def _with_thumbnails(result: TaskResult, worst: Sequence[WorstImage]) -> tuple[WorstExample, ...]:
    if not worst:
        return ()
    split = result.split
    stored, _ = split.stored(np.array([image.place for image in worst]))
    pictures = split.pixels.centre(stored)
    return tuple(
        WorstExample(image, Thumbnail.of(picture))
        for image, picture in zip(worst, pictures, strict=True)
    )
