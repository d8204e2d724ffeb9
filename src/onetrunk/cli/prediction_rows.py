"""Write predictions as CSV or JSON lines, one row per image."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import IO, Any

from onetrunk.data.task import Task
from onetrunk.errors import printable
from onetrunk.store.strict_json import nulls, strict_json

FORMATS = ("csv", "jsonl")


class Rows:
    """A writer of one row per image: its file, its domain and the prediction of each task."""

    def __init__(self, tasks: Sequence[Task], form: str, to: IO[str] | None = None) -> None:
        self.tasks = tasks
        self.form = form
        self.to = sys.stdout if to is None else to
        self._writer: Any = None

    def write(
        self, file: str, domain: str, prediction: dict[str, Any], maps: dict[str, str]
    ) -> None:
        """Write a row.

        Args:
            prediction: The result of `model.predict` for the image.
            maps: The file of each task's map, by task.
        """
        if self.form == "jsonl":
            values = {task.name: _plain(task, prediction[task.name], maps) for task in self.tasks}
            print(strict_json(nulls({"file": file, "domain": domain, **values})), file=self.to)
            return
        if self.to.isatty():  # control characters in a name would reach the terminal
            file = printable(file)
        row: dict[str, Any] = {"file": file, "domain": domain}
        for task in self.tasks:
            row |= cells(task, prediction[task.name], maps.get(task.name, ""))
        if self._writer is None:
            self._writer = csv.DictWriter(self.to, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(row)


def cells(task: Task, prediction: dict[str, Any], written: str) -> dict[str, Any]:
    """Return the columns of a task: class and score, labels joined by `;`, numbers or a file."""
    name = task.name
    if task.dense:
        return {name: written}
    if task.kind == "classify":
        return {name: prediction["label"], f"{name}_score": f"{prediction['score']:.6g}"}
    if task.kind == "multilabel":
        return {name: ";".join(prediction["labels"])}
    numbers = prediction["values"] if task.kind == "regress" else prediction["vector"].tolist()
    if len(numbers) == 1:
        return {name: repr(numbers[0])}
    return {f"{name}_{place}": repr(value) for place, value in enumerate(numbers)}


def _plain(task: Task, prediction: dict[str, Any], maps: dict[str, str]) -> dict[str, Any]:
    """Return the full prediction of a task as JSON values."""
    if task.dense:
        return {"map": maps.get(task.name)}
    if task.kind == "embed":
        return {"vector": prediction["vector"].tolist()}
    return prediction
