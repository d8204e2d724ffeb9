"""How training went: losses and validation scores by step, and which step was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onetrunk.eval.metrics import METRICS, Metric
from onetrunk.report.runs import Group, Run

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Line:
    """One seed of one column."""

    column: int  # its place; −1 is the baseline
    seed: int
    loss: Points  # by step
    val: Points  # the headline as an error, by step
    chosen: int | None  # the step whose weights were kept

    @property
    def at_chosen(self) -> float | None:
        """The validation error at the step that was kept."""
        return next((y for x, y in self.val if x == self.chosen), None)

    @property
    def best(self) -> tuple[float, float] | None:
        """The step at which this task alone was best, and its error there."""
        return min(self.val, key=lambda point: point[1]) if self.val else None


@dataclass(frozen=True)
class Course:
    """One task's training in all columns."""

    domain: str
    task: str
    metric: Metric | None  # None where nothing was validated yet
    lines: tuple[Line, ...]


def courses(groups: Sequence[tuple[int, Group]]) -> tuple[Course, ...]:
    """Of every task that the runs' records speak of."""
    known: dict[tuple[str, str], Metric | None] = {}
    for _, group in groups:
        for run in group.runs:
            for key, metric in units(run).items():
                known[key] = metric or known.get(key)
    return tuple(
        Course(
            domain,
            task,
            metric,
            tuple(
                _line(run, at, domain, task, metric) for at, group in groups for run in group.runs
            ),
        )
        for (domain, task), metric in known.items()
    )


def units(run: Run) -> dict[tuple[str, str], Metric | None]:
    """(domain, task) of a run's records, with the headline that was validated."""
    headlines = {metrics[0].name: metrics[0] for metrics in METRICS.values()}
    found: dict[tuple[str, str], Metric | None] = {}
    for record in run.records:
        for key in _numbers(record.get("loss")):
            domain, _, task = key.partition("/")
            found.setdefault((domain, task), None)
        for key in _numbers(record.get("val")):
            domain, _, rest = key.partition("/")
            task, _, metric = rest.partition("/")
            if metric in headlines:
                found[domain, task] = headlines[metric]
    return found


def _line(run: Run, column: int, domain: str, task: str, metric: Metric | None) -> Line:
    loss: list[tuple[float, float]] = []
    val: list[tuple[float, float]] = []
    name = f"{domain}/{task}"
    for record in run.records:
        losses, values = _numbers(record.get("loss")), _numbers(record.get("val"))
        if name in losses:
            loss.append((float(record["step"]), losses[name]))
        if metric is not None and f"{name}/{metric.name}" in values:
            value = values[f"{name}/{metric.name}"]
            error = 100 - value if metric.better == "higher" else value
            val.append((float(record["step"]), error))
    return Line(column, run.seed, tuple(loss), tuple(val), run.chosen(domain))


def _numbers(given: object) -> Mapping[str, float]:
    """The finite numbers of a record's table."""
    if not isinstance(given, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in given.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
