"""Training curves: losses and validation errors by step, and the checkpoint that was selected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onetrunk.eval.metrics import SCORES
from onetrunk.eval.metrics.scores import Metric
from onetrunk.eval.outcomes import Key
from onetrunk.report.run_files import RunFiles, RunGroup

Points = tuple[tuple[float, float], ...]  # (step, value)


@dataclass(frozen=True)
class RunCurve:
    """One task's curves in one run."""

    column: int  # index of the column; −1 for the baseline
    seed: int
    loss: Points
    val: Points  # the headline as an error
    selected: int | None  # step of the checkpoint that was selected

    @property
    def selected_error(self) -> float | None:
        """The validation error of the selected checkpoint."""
        return next((error for step, error in self.val if step == self.selected), None)

    @property
    def best(self) -> tuple[float, float] | None:
        """The step with the task's lowest validation error, and that error."""
        return min(self.val, key=lambda point: point[1]) if self.val else None


@dataclass(frozen=True)
class TaskCurves:
    """One task's curves in all runs."""

    domain: str
    task: str
    metric: Metric | None  # None if nothing has been validated yet
    runs: tuple[RunCurve, ...]

    @property
    def title(self) -> str:
        """The domain, with the task unless it is `classify`."""
        return self.domain if self.task == "classify" else f"{self.domain}/{self.task}"


def training_curves(groups: Sequence[tuple[int, RunGroup]]) -> tuple[TaskCurves, ...]:
    """Return the curves of every task in the records of the runs."""
    metrics: dict[Key, Metric | None] = {}
    for _, group in groups:
        for run in group.runs:
            for key, metric in _recorded_tasks(run).items():
                metrics[key] = metric or metrics.get(key)
    return tuple(
        TaskCurves(
            *key,
            metric,
            tuple(_curve(run, index, key, metric) for index, group in groups for run in group.runs),
        )
        for key, metric in metrics.items()
    )


def _recorded_tasks(run: RunFiles) -> dict[Key, Metric | None]:
    """Return the tasks in a run's records, with the headline that was validated."""
    headlines = {scores.metrics[0].name: scores.metrics[0] for scores in SCORES.values()}
    tasks: dict[Key, Metric | None] = {}
    for record in run.records:
        for name in _finite(record.get("loss")):
            domain, _, task = name.partition("/")
            tasks.setdefault((domain, task), None)
        for name in _finite(record.get("val")):
            domain, _, rest = name.partition("/")
            task, _, metric = rest.partition("/")
            if metric in headlines:
                tasks[domain, task] = headlines[metric]
    return tasks


def _curve(run: RunFiles, column: int, key: Key, metric: Metric | None) -> RunCurve:
    loss: list[tuple[float, float]] = []
    val: list[tuple[float, float]] = []
    name = "/".join(key)
    for record in run.records:
        losses, values = _finite(record.get("loss")), _finite(record.get("val"))
        if name in losses:
            loss.append((float(record["step"]), losses[name]))
        if metric is not None and f"{name}/{metric.name}" in values:
            value = values[f"{name}/{metric.name}"]
            val.append((float(record["step"]), 100 - value if metric.better == "higher" else value))
    return RunCurve(column, run.seed, tuple(loss), tuple(val), run.selected_step(key[0]))


def _finite(table: object) -> Mapping[str, float]:
    """Return the finite numbers in a table of a record."""
    if not isinstance(table, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in table.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
