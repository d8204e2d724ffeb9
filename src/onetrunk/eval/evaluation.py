"""The result of `ot.evaluate`: a table of scores, with classes, confusions and images behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypeVar

from onetrunk.errors import BadInput
from onetrunk.eval.detail_files import write_details
from onetrunk.eval.metrics.by_class import ClassScores
from onetrunk.eval.metrics.calibration import Reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.eval.result import WORST, EvaluationResult, TaskResult, WorstImage
from onetrunk.eval.table import Table

Detail = TypeVar("Detail")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Table):
    """A table of scores, and what it was computed from.

        evaluation = ot.evaluate(model, domains)
        print(evaluation)  # the table
        evaluation.confusion("shop").counts
        pandas.DataFrame(evaluation.per_class("shop"))
        evaluation.worst("shop")[0].file

    It equals any table with the same scores.

    Args:
        results: The predictions and targets of each task.
    """

    results: Sequence[TaskResult] = field(default=(), repr=False)

    @classmethod
    def of(cls, result: EvaluationResult, intervals: bool = True) -> Evaluation:
        """Return the evaluation with this result."""
        table = result.table(intervals)
        return cls(table.rows, table.split, table.views, tuple(result.tasks))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._scores == (other.rows, other.split, other.views)

    def __hash__(self) -> int:
        return hash(self._scores)

    @property
    def _scores(self) -> tuple[object, ...]:
        return self.rows, self.split, self.views

    def confusion(self, domain: str, task: str | None = None) -> ConfusionMatrix:
        """Return the confusion matrix of a `classify` task.

        The task may be omitted where only one task of the domain has a confusion matrix.
        """
        found = {name: one.confusion() for name, one in self._tasks(domain, task).items()}
        return _only(domain, found, "a confusion matrix")

    def per_class(self, domain: str, task: str | None = None) -> tuple[ClassScores, ...]:
        """Return the scores of each class of a task."""
        found = {name: one.per_class() or None for name, one in self._tasks(domain, task).items()}
        return _only(domain, found, "classes")

    def reliability(self, domain: str, task: str | None = None) -> Reliability:
        """Return confidence against accuracy of a `classify` task."""
        found = {name: one.reliability() for name, one in self._tasks(domain, task).items()}
        return _only(domain, found, "confidences")

    def worst(self, domain: str, task: str | None = None, limit: int = WORST) -> list[WorstImage]:
        """Return the images of a task with the worst predictions, the worst first."""
        found = {name: one.worst(limit) for name, one in self._tasks(domain, task).items()}
        return _only(domain, found, "images")

    def save(self, folder: str | PathLike[str]) -> list[Path]:
        """Write classes, confusion matrices, reliability and worst images; return the files.

        They are CSV files and PNG pictures, named `DOMAIN-classes.csv` and so on, or
        `DOMAIN.TASK-classes.csv` for a domain with several tasks. The folder is created; one that
        has other files is refused.
        """
        return write_details(self.results, Path(folder))

    def _tasks(self, domain: str, task: str | None) -> dict[str, TaskResult]:
        """Return one task of a domain, or all, by name."""
        names = list(dict.fromkeys(one.domain for one in self.results))
        if domain not in names:
            raise BadInput("expected a domain that was evaluated", got=domain, available=names)
        tasks = {one.task.name: one for one in self.results if one.domain == domain}
        if task is None:
            return tasks
        if task not in tasks:
            raise BadInput(f"expected a task of {domain}", got=task, available=tasks)
        return {task: tasks[task]}


def _only(domain: str, found: Mapping[str, Detail | None], what: str) -> Detail:
    """Return the only detail that is known, among those of a domain's tasks."""
    known = {name: detail for name, detail in found.items() if detail is not None}
    if not known:
        raise BadInput(f"{domain}: expected a task with {what}", got=", ".join(found))
    if len(known) > 1:
        raise BadInput(f"expected one of the tasks of {domain}", got="none", available=known)
    return next(iter(known.values()))
