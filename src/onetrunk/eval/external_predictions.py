"""Someone else's predictions over the same images: a table of them, evaluated as our models are.

A row names domain, image and task, and what was predicted: `label` of a classify task, `value` (one
number, or a JSON list) of a regress task. CSV, TSV, JSON lines or Parquet. `domain` may be missing
where one domain is evaluated, `task` where a domain has one. An image goes by its name in the split,
or by a path that ends in it. Whoever leaves out hard images would win: every labelled image of a
task that has any prediction must have one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.files.labels import empty, label_of
from onetrunk.data.files.tables import Row, Rows
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.errors import BadInput, printable, shorten
from onetrunk.eval.evaluate import each_once
from onetrunk.eval.evaluation import EvaluationResult, TaskResult
from onetrunk.eval.image_metrics import Classify
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.outcomes import Key, Outcomes
from onetrunk.eval.table import Table
from onetrunk.progress import say

COLUMN = {"classify": "label", "regress": "value"}  # where each kind's prediction stands
OTHER_SPLIT = -1  # the place of an image that is no one of this split's


@dataclass(frozen=True)
class Outside:
    """An existing model over our splits: its scores, and all that did not match, a line each.

    `names`: of a checkpoint, which of its labels stand for each class, by (domain, task).
    """

    name: str
    evaluation_result: EvaluationResult
    notes: tuple[str, ...] = ()
    names: Mapping[Key, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def table(self, intervals: bool = True) -> Table:
        """As `evaluate` gives it."""
        return self.evaluation_result.table(intervals)

    def outcomes(self) -> Outcomes:
        """To compare our runs with, image by image."""
        return self.evaluation_result.outcomes()


@dataclass
class _Asked:
    """One task of one domain, and the predictions that came for it."""

    task: Task
    split: Split
    rows: int = 0
    predictions: dict[int, Any] = field(default_factory=dict)  # place in the split -> prediction
    unknown: list[str] = field(default_factory=list)  # images of no split
    elsewhere: list[str] = field(default_factory=list)  # images of another split, or unreadable
    doubled: list[str] = field(default_factory=list)  # the same answer again
    disputed: list[str] = field(default_factory=list)  # another answer
    others: Counter[str] = field(default_factory=Counter)  # labels that are no class


def evaluate_predictions(
    path: str | PathLike[str], domains: Sequence[Domain], split: str = "test"
) -> Outside:
    """A table of predictions, evaluated over a split of these domains.

    A domain without any row is left out. Rows of other images are counted and named; a labelled
    image without a prediction, or with two different ones, makes the whole table refused.
    """
    if split not in SPLITS:
        raise BadInput("unknown split", got=split, available=SPLITS)
    rows = Rows(Path(path), Path(path).name)
    several = {domain.name: domain for domain in each_once(domains)}
    columns = _columns(rows, several)
    places = {name: _places(domain, split) for name, domain in several.items()}
    asked: dict[Key, _Asked] = {}
    strange = Counter[str]()  # domains that nobody asked for
    for where, row in rows.read(columns):
        name = _cell(row, "domain") or (next(iter(several)) if len(several) == 1 else "")
        if not name:
            raise BadInput(f"{rows.name}: {where}: no domain", available=several)
        if name not in several:
            strange[name] += 1
            continue
        task = _task(several[name], row, f"{rows.name}: {where}")
        if (name, task.name) not in asked:
            asked[name, task.name] = _Asked(task, several[name].splits[split])
        _take(asked[name, task.name], places[name], row, f"{rows.name}: {where}")
    _refuse(rows.name, asked)
    notes = [f"no such domain here: {_counted(strange)}"] if strange else []
    for domain in several:
        if domain not in {name for name, _ in asked}:
            notes.append(f"{domain}: no predictions: left out")
    for (domain, name), one in asked.items():
        notes += [f"{domain}/{name}: {note}" for note in _notes(one)]
    notes = [printable(f"{rows.name}: {note}") for note in notes]
    for note in notes:
        say(note)
    if not asked:
        raise BadInput(f"{rows.name}: no row of a domain that is asked for", available=several)
    evaluated = [_evaluated(domain, one) for (domain, _), one in asked.items()]
    return Outside(rows.name, EvaluationResult(split, evaluated), tuple(notes))


def normal(name: str) -> str:
    """A class's name without what people write differently: case, blanks, `_` and `-`."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _columns(rows: Rows, domains: Mapping[str, Domain]) -> list[str]:
    """Those that are read; those that are missing are an error."""
    lacking = [] if "image" in rows.columns else ["image"]
    if "domain" not in rows.columns and len(domains) > 1:
        lacking.append("domain")
    if not {"label", "value"} & set(rows.columns):
        lacking.append("label (or value)")
    if lacking:
        raise BadInput(
            f"{rows.name}: predictions have columns domain, image, task, and label or value",
            got=f"no {', no '.join(lacking)}",
            available=rows.columns,
        )
    known = ("domain", "image", "task", "label", "value")
    return [column for column in known if column in rows.columns]


def _places(domain: Domain, split: str) -> dict[str, int]:
    """Every image's name to its place in the split."""
    places = dict.fromkeys(domain.index.keys, OTHER_SPLIT)
    images = domain.splits[split]
    places.update((images.key(i), i) for i in range(len(images)))
    return places


def _cell(row: Row, column: str) -> str:
    """A cell's text; "" where it is empty."""
    value = row.get(column)
    return "" if empty(value) else str(value).strip()


def _task(domain: Domain, row: Row, where: str) -> Task:
    """The task that a row is about."""
    name = _cell(row, "task")
    names = [task.name for task in domain.tasks]
    if not name and len(names) > 1:
        raise BadInput(f"{where}: {domain.name} has several tasks", got="no task", available=names)
    for task in domain.tasks:
        if task.name == (name or names[0]):
            if task.kind in COLUMN:
                return task
            raise BadInput(
                f"{where}: {domain.name}/{task.name}: predictions in a table are of kinds",
                got=task.kind,
                available=COLUMN,
            )
    raise BadInput(f"{where}: {domain.name} has no such task", got=name, available=names)


def find(path: str, places: Mapping[str, int]) -> int | None:
    """The place of the image that a path names: by the longest end of it that is a name."""
    end = path.replace("\\", "/") if path not in places else path
    while end not in places:
        _, slash, end = end.partition("/")
        if not slash:
            return None
    return places[end]


def _take(one: _Asked, places: Mapping[str, int], row: Row, where: str) -> None:
    """Keep what a row says of its image."""
    one.rows += 1
    image = _cell(row, "image")
    place = find(image, places)
    if place is None or place == OTHER_SPLIT:
        (one.unknown if place is None else one.elsewhere).append(image)
        return
    column = COLUMN[one.task.kind]
    prediction: Any = label_of(one.task, [row.get(column)], f"{where}, column {column}")
    if prediction is None:
        raise BadInput(f"{where}: no {column}", try_="predict something for every image")
    if one.task.kind == "classify":
        text = str(prediction)
        prediction = _class(one.task, text)
        if prediction == len(one.task.classes):
            one.others[text] += 1
    if place not in one.predictions:
        one.predictions[place] = prediction
    elif one.predictions[place] == prediction:
        one.doubled.append(image)
    else:
        one.disputed.append(image)


def _class(task: Task, label: str) -> int:
    """The class of this name, by its spelling or else without case and separators.

    One above the last where there is none, or where two are meant.
    """
    if label in task.classes:
        return task.classes.index(label)
    near = [i for i, name in enumerate(task.classes) if normal(name) == normal(label)]
    return near[0] if len(near) == 1 else len(task.classes)


def _refuse(name: str, asked: Mapping[Key, _Asked]) -> None:
    """All that makes the table no answer, at once."""
    problems = []
    for (domain, task), one in asked.items():
        where = f"{domain}/{task}"
        places = np.flatnonzero(_labelled(one))
        missing = [one.split.key(int(i)) for i in places if int(i) not in one.predictions]
        if missing:
            strange = f"; {len(one.unknown)} rows name no image of it: {shorten(one.unknown, 3)}"
            problems.append(
                f"{where}: {len(missing)} of {len(places)} {one.split.name} images have no "
                f"prediction: {shorten(missing, 3)}{strange if one.unknown else ''}"
            )
        if one.disputed:
            problems.append(
                f"{where}: {len(one.disputed)} images have two different predictions: "
                f"{shorten(one.disputed, 3)}"
            )
        if one.others and one.others.total() == len(one.predictions) + len(one.doubled):
            problems.append(
                f"{where}: no label is one of its classes: {_counted(one.others)}; "
                f"available: {shorten(one.task.classes, 6)}"
            )
    if problems:
        raise BadInput(
            "\n".join(
                printable(f"{name}: {problem}; try: mend the table, or leave the domain out")
                for problem in problems
            )
        )


def _notes(one: _Asked) -> list[str]:
    """What did not match, and did no harm."""
    notes = [
        f"{len(images)} {what}: {shorten(images, 5)}"
        for images, what in (
            (one.unknown, "rows name no image of it"),
            (one.elsewhere, f"rows are of no readable {one.split.name} image"),
            (one.doubled, "images twice, with the same prediction"),
        )
        if images
    ]
    if one.others:
        count = one.others.total()
        notes.append(
            f"{count} predictions are none of its classes, so wrong: {_counted(one.others)}"
        )
    return notes


def _counted(names: Counter[str]) -> str:
    return shorten([f"{name} ({count})" for name, count in names.most_common()], 5)


def _labelled(one: _Asked) -> Any:
    labels = one.split.label(one.task.name)
    return ~np.isnan(labels).any(1) if one.task.kind == "regress" else labels != NO_CLASS


def _evaluated(domain: str, one: _Asked) -> TaskResult:
    """Scores of the predictions; what was said of an image without a label counts nowhere."""
    labels = one.split.label(one.task.name)
    scores = scores_of(one.task)
    if isinstance(scores, Classify):
        best = [one.predictions.get(i, len(one.task.classes)) for i in range(len(labels))]
        scores.take(np.array(best), labels)
    else:
        out = np.zeros(labels.shape)
        for i, prediction in one.predictions.items():
            out[i] = prediction
        scores.update(torch.from_numpy(out), torch.from_numpy(np.array(labels)))
    return TaskResult(domain, one.task, one.split, scores, np.arange(len(labels)))
