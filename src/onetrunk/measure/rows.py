"""Scores of one task to rows of the table."""

from __future__ import annotations

from onetrunk.data.task import Task
from onetrunk.measure.held import Scores
from onetrunk.measure.labels import Embed
from onetrunk.measure.scores import metrics_of
from onetrunk.measure.table import Row
from onetrunk.progress import say


def rows_of(
    domain: str,
    task: Task,
    scores: Scores,
    split: str,
    interval: tuple[float, float] | None = None,
) -> list[Row]:
    """A row for each metric, the headline first; none, which is said, where it is not defined."""
    values = scores.compute()
    metrics = metrics_of(task)
    if isinstance(scores, Embed) and scores.lonely and values:
        say(
            f"{domain}/{task.name}: {scores.lonely} {split} images have no other of their class "
            "and are not asked for"
        )
    if metrics[0].name not in values:
        say(f"{domain}/{task.name}: {split} has {_lack(task)}: left out")
        return []
    low, high = interval or (None, None)
    return [
        Row(
            domain,
            task.name,
            metric.name,
            values[metric.name],
            scores.count,
            task.kind,
            metric.unit,
            metric.better,
            place == 0,
            low if place == 0 else None,
            high if place == 0 else None,
        )
        for place, metric in enumerate(metrics)
    ]


def _lack(task: Task) -> str:
    """What a split lacks whose headline is not defined."""
    if task.kind == "embed":
        return "no two labelled images of one class"
    if task.kind == "regress":
        return "no labelled images whose numbers differ"
    return "no image with a label"
