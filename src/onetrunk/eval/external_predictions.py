"""Predictions of an external model in a table, evaluated like those of a onetrunk network.

A row names the domain, the image and the task, and the prediction: `label` for a classify task,
`value` (a number, or a JSON list) for a regress task. The table is CSV, TSV, JSON lines or Parquet.
`domain` may be missing if one domain is evaluated, `task` if a domain has one. An image is named by
its name in the split, or by a path that ends in it. Every labelled image of a task that has any
prediction must have one: leaving out hard images would lower the error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.files.labels import empty, label_of
from onetrunk.data.files.tables import Row, Rows
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.errors import BadInput, printable, shorten
from onetrunk.eval.evaluate import distinct_domains
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.metrics.image import Classify
from onetrunk.eval.outcomes import Key, Outcomes
from onetrunk.eval.result import EvaluationResult, TaskResult
from onetrunk.eval.table import Table
from onetrunk.nn.foreign import plain_name
from onetrunk.progress import say

COLUMN = {"classify": "label", "regress": "value"}  # of the predictions, by kind of task
COLUMNS = ("domain", "image", "task", "label", "value")
OTHER_SPLIT = -1  # the place of an image that is not in this split


@dataclass(frozen=True)
class ExternalResult:
    """The result of an external model on our splits.

    Args:
        name: The table's file name, or the checkpoint's architecture.
        result: The scores.
        notes: What did not match, a line each.
        labels: The labels of a checkpoint that are used for each class, by (domain, task).
    """

    name: str
    result: EvaluationResult
    notes: tuple[str, ...] = ()
    labels: Mapping[Key, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def table(self, intervals: bool = True) -> Table:
        """Return the table of scores."""
        return self.result.table(intervals)

    def outcomes(self) -> Outcomes:
        """Return the outcomes of every image, for comparisons with runs."""
        return self.result.outcomes()


@dataclass
class _TaskPredictions:
    """The predictions for one task, and the rows that do not match."""

    task: Task
    split: Split
    predictions: dict[int, Any] = field(default_factory=dict)  # by place in the split
    unknown: list[str] = field(default_factory=list)  # names that are not of an image
    elsewhere: list[str] = field(default_factory=list)  # images of another split, or unreadable
    repeated: list[str] = field(default_factory=list)  # images with the same prediction again
    conflicting: list[str] = field(default_factory=list)  # images with another prediction
    other_labels: Counter[str] = field(default_factory=Counter)  # labels that are not classes

    def labelled(self) -> NDArray[np.bool_]:
        """Return which images of the split have a label."""
        labels = self.split.label(self.task.name)
        regress = self.task.kind == "regress"
        labelled: NDArray[np.bool_] = ~np.isnan(labels).any(1) if regress else labels != NO_CLASS
        return labelled


def evaluate_predictions(
    path: str | PathLike[str], domains: Sequence[Domain], split: str = "test"
) -> ExternalResult:
    """Evaluate a table of predictions on a split of these domains.

    A domain without any row is left out. Rows of other images are counted and named. A table with a
    labelled image that has no prediction, or two different ones, is refused.
    """
    if split not in SPLITS:
        raise BadInput("unknown split", got=split, available=SPLITS)
    rows = Rows(Path(path), Path(path).name)
    by_name = {domain.name: domain for domain in distinct_domains(domains)}
    columns = _columns(rows, by_name)
    places = {name: _places(domain, split) for name, domain in by_name.items()}
    by_task: dict[Key, _TaskPredictions] = {}
    other_domains = Counter[str]()
    for line, row in rows.read(columns):
        where = f"{rows.name}: {line}"
        name = _cell(row, "domain") or (next(iter(by_name)) if len(by_name) == 1 else "")
        if not name:
            raise BadInput(f"{where}: expected a domain", available=by_name)
        if name not in by_name:
            other_domains[name] += 1
            continue
        task = _task(by_name[name], row, where)
        if (name, task.name) not in by_task:
            by_task[name, task.name] = _TaskPredictions(task, by_name[name].splits[split])
        _add_row(by_task[name, task.name], places[name], row, where)
    problems = [error for key, one in by_task.items() for error in _problems(rows.name, key, one)]
    if problems:
        raise BadInput.several(problems)
    notes = [f"unknown domains: {_counts(other_domains)}"] if other_domains else []
    with_predictions = {name for name, _ in by_task}
    notes += [
        f"{name}: no predictions: left out" for name in by_name if name not in with_predictions
    ]
    for (name, task_name), one in by_task.items():
        notes += [f"{name}/{task_name}: {note}" for note in _notes(one)]
    notes = [printable(f"{rows.name}: {note}") for note in notes]
    for note in notes:
        say(note)
    if not by_task:
        raise BadInput(
            f"{rows.name}: expected rows of the domains to evaluate",
            got=_counts(other_domains) or "none",
            available=by_name,
        )
    results = [_evaluate(name, one) for (name, _), one in by_task.items()]
    return ExternalResult(rows.name, EvaluationResult(split, results), tuple(notes))


def _columns(rows: Rows, domains: Mapping[str, Domain]) -> list[str]:
    """Return the columns to read; missing ones are refused."""
    missing = [] if "image" in rows.columns else ["image"]
    if "domain" not in rows.columns and len(domains) > 1:
        missing.append("domain")
    if not {"label", "value"} & set(rows.columns):
        missing.append("label (or value)")
    if missing:
        raise BadInput(
            f"{rows.name}: expected the columns domain, image, task, and label or value",
            got=f"no {', no '.join(missing)}",
            available=rows.columns,
        )
    return [column for column in COLUMNS if column in rows.columns]


def _places(domain: Domain, split: str) -> dict[str, int]:
    """Return the place in the split of every image of the domain, by name."""
    places = dict.fromkeys(domain.index.keys, OTHER_SPLIT)
    images = domain.splits[split]
    places.update((images.key(i), i) for i in range(len(images)))
    return places


def _cell(row: Row, column: str) -> str:
    """Return a cell's text; "" if it is empty."""
    value = row.get(column)
    return "" if empty(value) else str(value).strip()


def _task(domain: Domain, row: Row, where: str) -> Task:
    """Return the task of a row."""
    name = _cell(row, "task")
    names = [task.name for task in domain.tasks]
    if not name and len(names) > 1:
        raise BadInput(
            f"{where}: expected a task, because {domain.name} has several",
            got="no task",
            available=names,
        )
    for task in domain.tasks:
        if task.name == (name or names[0]):
            if task.kind in COLUMN:
                return task
            raise BadInput(
                f"{where}: {domain.name}/{task.name}: a table cannot hold predictions of its kind",
                got=task.kind,
                available=COLUMN,
            )
    raise BadInput(f"{where}: {domain.name} has no such task", got=name, available=names)


def find_place(path: str, places: Mapping[str, int]) -> int | None:
    """Return the place of the image whose name is the longest end of a path."""
    end = path.replace("\\", "/") if path not in places else path
    while end not in places:
        _, slash, end = end.partition("/")
        if not slash:
            return None
    return places[end]


def _add_row(one: _TaskPredictions, places: Mapping[str, int], row: Row, where: str) -> None:
    image = _cell(row, "image")
    place = find_place(image, places)
    if place is None or place == OTHER_SPLIT:
        (one.unknown if place is None else one.elsewhere).append(image)
        return
    column = COLUMN[one.task.kind]
    prediction: Any = label_of(one.task, [row.get(column)], f"{where}, column {column}")
    if prediction is None:
        raise BadInput(f"{where}: expected a {column}", try_="predict a value for every image")
    if one.task.kind == "classify":
        label = str(prediction)
        prediction = _class_index(one.task, label)
        if prediction == len(one.task.classes):
            one.other_labels[label] += 1
    if place not in one.predictions:
        one.predictions[place] = prediction
    elif one.predictions[place] == prediction:
        one.repeated.append(image)
    else:
        one.conflicting.append(image)


def _class_index(task: Task, label: str) -> int:
    """Return the index of the class with this name, if necessary without case and separators.

    Return the number of classes where there is none, or where several match.
    """
    if label in task.classes:
        return task.classes.index(label)
    near = [i for i, name in enumerate(task.classes) if plain_name(name) == plain_name(label)]
    return near[0] if len(near) == 1 else len(task.classes)


def _problems(file: str, key: Key, one: _TaskPredictions) -> list[BadInput]:
    """Return all reasons to refuse the predictions for a task."""
    where = printable(f"{file}: {'/'.join(key)}")
    try_ = "correct the table, or leave the domain out"
    problems = []
    places = np.flatnonzero(one.labelled())
    missing = [one.split.key(int(i)) for i in places if int(i) not in one.predictions]
    if missing:
        unknown = f"; {len(one.unknown)} rows name unknown images: {shorten(one.unknown, 3)}"
        problems.append(
            BadInput(
                f"{where}: {len(missing)} of {len(places)} {one.split.name} images have no "
                f"prediction: {shorten(missing, 3)}{unknown if one.unknown else ''}",
                try_=try_,
            )
        )
    if one.conflicting:
        problems.append(
            BadInput(
                f"{where}: {len(one.conflicting)} images have two different predictions",
                got=shorten(one.conflicting, 3),
                try_=try_,
            )
        )
    if one.other_labels and one.other_labels.total() == len(one.predictions) + len(one.repeated):
        problems.append(
            BadInput(
                f"{where}: none of the labels is a class",
                got=_counts(one.other_labels),
                available=one.task.classes,
                try_=try_,
            )
        )
    return problems


def _notes(one: _TaskPredictions) -> list[str]:
    """Return notes on rows that do not match: they are ignored, or count as wrong."""
    notes = [
        f"{len(images)} {description}: {shorten(images, 5)}"
        for images, description in (
            (one.unknown, "rows name unknown images"),
            (one.elsewhere, f"rows are not of readable {one.split.name} images"),
            (one.repeated, "images occur twice, with the same prediction"),
        )
        if images
    ]
    if one.other_labels:
        count = one.other_labels.total()
        notes.append(
            f"{count} labels are not classes and count as wrong: {_counts(one.other_labels)}"
        )
    return notes


def _counts(names: Counter[str]) -> str:
    return shorten([f"{name} ({count})" for name, count in names.most_common()], 5)


def _evaluate(domain: str, one: _TaskPredictions) -> TaskResult:
    """Return the scores of the predictions for labelled images."""
    labels = one.split.label(one.task.name)
    scores = scores_of(one.task)
    if isinstance(scores, Classify):
        classes = [one.predictions.get(i, len(one.task.classes)) for i in range(len(labels))]
        scores.add_predicted(np.array(classes), labels)
    else:
        out = np.zeros(labels.shape)
        for i, prediction in one.predictions.items():
            out[i] = prediction
        scores.update(torch.from_numpy(out), torch.from_numpy(np.array(labels)))
    return TaskResult(domain, one.task, one.split, scores, np.arange(len(labels)))
