"""Metrics by kind of task.

| kind | headline | other metrics |
|---|---|---|
| classify | error, % | balanced_error, top5_error (of six or more classes), ece |
| multilabel | map_error = 100·(1 − mAP), % | |
| regress | nrmse, in standard deviations of the targets | rmse, mae |
| segment | miou, % | pixel_accuracy |
| depth | abs, metres or the task's unit | rel |
| normals | mean, degrees | median, within_11, within_22, within_30 |
| embed | recall_at_1, % | |

Each kind has one subclass of `Scores`, which defines its metrics and computes them: `image.py` has
those of one prediction per image, `pixel.py` those of one prediction per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onetrunk.data.task import KINDS, Task
from onetrunk.errors import BadInput
from onetrunk.eval.metrics.image import Classify, Embed, Multilabel, Regress
from onetrunk.eval.metrics.pixel import Depth, Normals, Segment
from onetrunk.eval.metrics.scores import Metric, Scores

SCORES: Mapping[str, type[Scores]] = {
    scores.kind: scores
    for scores in (Classify, Multilabel, Regress, Segment, Depth, Normals, Embed)
}


def scores_of(task: Task) -> Scores:
    """Return empty scores of a task."""
    return SCORES[task.kind](task)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Return a task's metrics with their units, the headline first."""
    return tuple(
        replace(metric, unit=task.unit) if metric.task_unit and task.unit else metric
        for metric in SCORES[task.kind].metrics
    )


def headline(kind: str) -> Metric:
    """Return the one metric by which a kind of task is evaluated."""
    if kind not in SCORES:
        raise BadInput("unknown kind of task", got=kind, available=KINDS)
    return SCORES[kind].metrics[0]


def as_error(kind: str, value: float) -> float:
    """Return a headline as a number where lower is better: 100 − value where higher is better."""
    return 100 - value if headline(kind).better == "higher" else value
