"""Scores by kind of task: which metrics there are, which one is the headline, how they are counted.

| kind | headline | also |
|---|---|---|
| classify | error, % | balanced_error, ece |
| multilabel | map_error = 100·(1 − mAP), % | |
| regress | nrmse, in deviations of the targets | rmse, mae |
| segment | miou, % | pixel_accuracy |
| depth | abs, metres or the task's unit | rel |
| normals | mean, degrees | median, within_11, within_22, within_30 |
| embed | recall_at_1, % | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onetrunk.data.task import KINDS, Task
from onetrunk.errors import BadInput
from onetrunk.eval.accumulator import Scores
from onetrunk.eval.image_metrics import Classify, Embed, Multilabel, Regress
from onetrunk.eval.pixel_metrics import Depth, Normals, Segment
from onetrunk.eval.table import Better


@dataclass(frozen=True)
class Metric:
    """A metric's name, what it counts, and which way is better."""

    name: str
    unit: str = ""
    better: Better = "lower"


METRICS: Mapping[str, tuple[Metric, ...]] = {  # the headline first
    "classify": (Metric("error", "%"), Metric("balanced_error", "%"), Metric("ece", "%")),
    "multilabel": (Metric("map_error", "%"),),
    "regress": (Metric("nrmse"), Metric("rmse"), Metric("mae")),
    "segment": (Metric("miou", "%", "higher"), Metric("pixel_accuracy", "%", "higher")),
    "depth": (Metric("abs", "m"), Metric("rel")),
    "normals": (
        Metric("mean", "°"),
        Metric("median", "°"),
        *(Metric(f"within_{degrees}", "%", "higher") for degrees in (11, 22, 30)),
    ),
    "embed": (Metric("recall_at_1", "%", "higher"),),
}
SCORES: Mapping[str, type[Scores]] = {
    "classify": Classify,
    "multilabel": Multilabel,
    "regress": Regress,
    "segment": Segment,
    "depth": Depth,
    "normals": Normals,
    "embed": Embed,
}


def scores_of(task: Task) -> Scores:
    """Empty scores of a task."""
    return SCORES[task.kind](task)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """A task's metrics, the headline first; numbers and depths count in its own unit."""
    metrics = METRICS[task.kind]
    if task.kind == "depth" and task.unit:
        return (replace(metrics[0], unit=task.unit), *metrics[1:])
    if task.kind == "regress" and task.unit:
        return (metrics[0], *(replace(metric, unit=task.unit) for metric in metrics[1:]))
    return metrics


def headline(kind: str) -> Metric:
    """The one metric by which a kind of task is evaluated."""
    if kind not in METRICS:
        raise BadInput("unknown kind of task", got=kind, available=KINDS)
    return METRICS[kind][0]


def as_error(kind: str, value: float) -> float:
    """A headline as a number where lower is better: of what is better when higher, 100 − value."""
    return 100 - value if headline(kind).better == "higher" else value
