"""Predictions as rows, one per image: CSV and JSON lines.

A row has the image's file, its domain and the columns of each task. With `errors`, it ends with a
column for the reason why an image could not be read.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from onetrunk.data.task import Task
from onetrunk.errors import printable
from onetrunk.store.csv_text import csv_text
from onetrunk.store.strict_json import nulls, strict_json

FORMATS = ("csv", "jsonl")  # on standard output


@dataclass(frozen=True)
class Column:
    """A column of a task, by what it holds."""

    name: str
    kind: Literal["text", "score", "number", "labels", "vector"]


class PredictionRows(ABC):
    """A writer of one row per image.

    Args:
        tasks: The tasks of the domain.
        top: How many classes or labels with their scores a row has; None for only the best one (as
            JSON: for all).
    """

    def __init__(self, tasks: Sequence[Task], top: int | None) -> None:
        self.tasks = tasks
        self.top = top

    @abstractmethod
    def write(
        self, file: str, domain: str, prediction: Mapping[str, Any], maps: Mapping[str, str]
    ) -> None:
        """Write a row.

        Args:
            prediction: The result of `model.predict` for the image.
            maps: The file of each task's map, by task.
        """

    @abstractmethod
    def write_error(self, file: str, domain: str, error: str) -> None:
        """Write the row of an image that could not be read."""

    def close(self) -> None:  # noqa: B027, writers without a buffer have nothing to do
        """Write what is buffered."""

    def columns(self) -> list[Column]:
        """Return the columns of all tasks."""
        return [column for task in self.tasks for column in columns_of(task, self.top)]

    def values(self, prediction: Mapping[str, Any], maps: Mapping[str, str]) -> list[Any]:
        """Return the values of these columns."""
        return [
            value
            for task in self.tasks
            for value in values_of(task, prediction[task.name], maps.get(task.name), self.top)
        ]


class JsonRows(PredictionRows):
    """JSON lines, with the scores of all classes or of the `top` ones."""

    def __init__(self, to: IO[str], tasks: Sequence[Task], top: int | None) -> None:
        super().__init__(tasks, top)
        self._to = to

    def write(
        self, file: str, domain: str, prediction: Mapping[str, Any], maps: Mapping[str, str]
    ) -> None:
        values = {task.name: self._plain(task, prediction[task.name], maps) for task in self.tasks}
        self._print({"file": file, "domain": domain, **values})

    def write_error(self, file: str, domain: str, error: str) -> None:
        self._print({"file": file, "domain": domain, "error": error})

    def _print(self, row: Mapping[str, Any]) -> None:
        print(strict_json(nulls(row)), file=self._to)

    def _plain(
        self, task: Task, prediction: Mapping[str, Any], maps: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the prediction of a task as JSON values."""
        if task.dense:
            return {"map": maps.get(task.name)}
        if task.kind == "embed":
            return {"vector": prediction["vector"].tolist()}
        if "scores" in prediction and self.top is not None:
            return {**prediction, "scores": dict(ranked(prediction["scores"], self.top))}
        return dict(prediction)


class CsvRows(PredictionRows):
    """CSV; labels are joined by `;`, and each number of a vector has a column.

    Args:
        errors: Whether there is a column `error`, and a row for images that could not be read.
    """

    def __init__(
        self, to: IO[str], tasks: Sequence[Task], top: int | None, errors: bool = False
    ) -> None:
        super().__init__(tasks, top)
        self._to = to
        self._errors = errors
        self._writer = csv.writer(to, lineterminator="\n")
        self._header: list[str] = []
        self._waiting: list[tuple[str, str, str]] = []  # errors before the header is known

    def write(
        self, file: str, domain: str, prediction: Mapping[str, Any], maps: Mapping[str, str]
    ) -> None:
        cells: dict[str, str] = {}
        for column, value in zip(self.columns(), self.values(prediction, maps), strict=True):
            cells |= _csv_cells(column, value)
        if not self._header:
            self._start(list(cells))
        self._row(file, domain, list(cells.values()), "")

    def write_error(self, file: str, domain: str, error: str) -> None:
        if not self._errors:
            return
        if self._header:
            self._row(file, domain, [""] * len(self._header), error)
        else:
            self._waiting.append((file, domain, error))

    def close(self) -> None:
        if self._waiting:
            self._start([column.name for column in self.columns()])

    def _start(self, header: list[str]) -> None:
        self._header = header
        self._writer.writerow(["file", "domain", *header, *["error"] * self._errors])
        waiting, self._waiting = self._waiting, []
        for file, domain, error in waiting:
            self._row(file, domain, [""] * len(header), error)

    def _row(self, file: str, domain: str, cells: list[str], error: str) -> None:
        if self._to.isatty():  # control characters in a name would reach the terminal
            file = printable(file)
        row = [csv_text(file), domain, *cells]
        self._writer.writerow([*row, csv_text(error)] if self._errors else row)


def columns_of(task: Task, top: int | None) -> list[Column]:
    """Return the columns of a task."""
    name = task.name
    if task.dense:
        return [Column(name, "text")]
    if task.kind == "regress":
        many = task.outputs > 1
        return [Column(f"{name}_{i}" if many else name, "number") for i in range(task.outputs)]
    if task.kind == "embed":
        return [Column(name, "vector")]
    places = range(1, min(top or 0, len(task.classes)) + 1)
    if task.kind == "classify":
        first = [Column(name, "text"), Column(f"{name}_score", "score")]
        places = places[1:]
    else:
        first = [Column(name, "labels")]
    more = [
        (Column(f"{name}_top{place}", "text"), Column(f"{name}_top{place}_score", "score"))
        for place in places
    ]
    return [*first, *(column for pair in more for column in pair)]


def values_of(
    task: Task, prediction: Mapping[str, Any], written: str | None, top: int | None
) -> list[Any]:
    """Return the values of the columns of a task."""
    if task.dense:
        return [written]
    if task.kind == "regress":
        return list(prediction["values"])
    if task.kind == "embed":
        return [prediction["vector"].tolist()]
    best = ranked(prediction["scores"], top or 0)
    if task.kind == "classify":
        first, best = [prediction["label"], prediction["score"]], best[1:]
    else:
        first = [prediction["labels"]]
    return [*first, *(value for pair in best for value in pair)]


def ranked(scores: Mapping[str, float], top: int) -> list[tuple[str, float]]:
    """Return the labels with the highest scores, the highest first."""
    return sorted(scores.items(), key=lambda pair: -pair[1])[:top]


def _csv_cells(column: Column, value: Any) -> dict[str, str]:
    if column.kind == "vector":
        names = [column.name] if len(value) == 1 else _numbered(column.name, len(value))
        return dict(zip(names, map(repr, value), strict=True))
    if column.kind == "labels":
        return {column.name: csv_text(";".join(value))}
    if column.kind == "text":
        return {column.name: csv_text(value or "")}
    return {column.name: f"{value:.6g}" if column.kind == "score" else repr(value)}


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{place}" for place in range(count)]
