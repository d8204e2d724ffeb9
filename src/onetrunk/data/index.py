"""The index of a source: names, splits and labels of its images as columns. Nothing is decoded.

All problems are collected while the list is read, and reported together.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.labels import fixed_classes
from onetrunk.data.sources import Item, Label, Source
from onetrunk.data.splitting import EXAMPLES, SPLITS, groups_of, move_nearest, split_codes
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.errors import BadInput, shorten


class Strings:
    """An immutable list of strings in two flat arrays: concatenated UTF-8 bytes, and their ends.

    It needs much less memory than a list of Python strings.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        joined = bytearray()
        ends = [0]
        for string in strings:
            joined += string.encode("utf-8", "surrogateescape")
            ends.append(len(joined))
        self._bytes = bytes(joined)
        self._ends: NDArray[np.int64] = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int | np.integer) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = int(i) % len(self)
        raw = self._bytes[self._ends[i] : self._ends[i + 1]]
        return raw.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


@dataclass
class Index:
    """The columns of a source's list, in the order of its keys.

    Attributes:
        keys: Names of the images, for messages.
        where: Where the source finds each image.
        split: 0 for train, 1 for val, 2 for test.
        labels: By task, without dense targets, which are read with the images.
        how: How the splits were made, for messages.
        units: A hash of each image's group, or else of its key: equal for the images of a group.
        fingerprint: A hash of all keys and stamps, which changes with the data.
    """

    tasks: tuple[Task, ...]
    keys: Strings
    where: Strings
    split: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]
    units: NDArray[np.uint64]
    how: str
    fingerprint: str
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the items of one split."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def read_index(
    source: Source, name: str, requested: Sequence[Task] | None = None, group: str | None = None
) -> Index:
    """Read the complete list of a source once.

    Args:
        name: The name of the domain, for messages.
        requested: The tasks to use, which the source must have; None for all tasks it has.
        group: A regular expression that finds the group in an item's key.
    """
    items = sorted(source.items(), key=lambda item: item.key)
    if not items:
        raise BadInput(
            f"{name}: no images in its source", try_="onetrunk data SOURCE shows what is read"
        )
    errors: list[BadInput] = []
    warnings = list(getattr(source, "notes", ()))
    keys = [item.key for item in items]
    if twice := [a for a, b in itertools.pairwise(keys) if a == b]:
        errors.append(
            BadInput(
                f"{name}: the source lists an image twice",
                got=shorten(twice, EXAMPLES),
                try_="list each image once",
            )
        )
    groups = groups_of(items, name, group, warnings)
    codes, hashes, how = split_codes(items, groups, name, errors)
    tasks: list[Task] = []
    labels: dict[str, NDArray[Any]] = {}
    for task in _tasks(source, name, requested):
        if not task.dense:
            before = len(errors)
            task, labels[task.name] = _labels(task, items, name, errors)
            if moved := _fill_train(task, labels[task.name], codes, hashes):
                warnings.append(
                    f"task {task.name}: the hash left no training image for some classes, so one "
                    f"image of each was moved to train: {shorten(moved, EXAMPLES)}"
                )
            if len(errors) == before and not getattr(source, "unlabelled", False):
                check_classes(task, labels[task.name], codes, name, errors, warnings)
        tasks.append(task)
    if not tasks:
        errors.append(
            BadInput(
                f"{name}: expected at least one task",
                try_="--task NAME=KIND, or tasks in the recipe",
            )
        )
    if errors:
        raise BadInput.several(errors)
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.key}\0{item.stamp}\0".encode("utf-8", "surrogateescape"))
    where = Strings(item.where for item in items)
    units = np.array(
        [_hash_of(k if group is None else group) for k, group in zip(keys, groups, strict=True)],
        np.uint64,
    )
    return Index(
        tuple(tasks), Strings(keys), where, codes, labels, units, how, digest.hexdigest(), warnings
    )


def _hash_of(name: str) -> int:
    """Return a number below 2⁶⁴ that depends only on the name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _tasks(source: Source, name: str, requested: Sequence[Task] | None) -> list[Task]:
    """Return the requested tasks with the source's classes; all of its tasks for None."""
    if requested is None:
        return list(source.tasks)
    available = {task.name: task for task in source.tasks}
    tasks = []
    for task in requested:
        if task.name not in available or available[task.name].kind != task.kind:
            raise BadInput(
                f"{name}: its source has no such task",
                got=f"{task.name} ({task.kind})",
                available=[f"{t.name} ({t.kind})" for t in source.tasks],
            )
        classes = available[task.name].classes
        if task.dense and classes:
            fixed_classes(name, task, classes)
        tasks.append(available[task.name].with_classes(task.classes or classes))
    return tasks


def _labels(
    task: Task, items: list[Item], name: str, errors: list[BadInput]
) -> tuple[Task, NDArray[Any]]:
    """Return the task with its classes, and its labels as an array."""
    raw = [item.labels.get(task.name) for item in items]
    if task.kind == "regress":
        return _numbers(task, raw, items, name, errors)
    known = dict.fromkeys(c for label in raw for c in _class_names(label))
    if not task.classes:
        task = task.with_classes(sorted(known, key=natural))
    place = {c: i for i, c in enumerate(task.classes)}
    if outside := [c for c in known if c not in place]:
        example = next(i for i, label in enumerate(raw) if outside[0] in _class_names(label))
        errors.append(
            BadInput(
                f"{name}: task {task.name}: {items[example].key}: a label outside the classes",
                got=outside[0],
                available=task.classes,
                try_="correct the label, or add it to the classes",
            )
        )
        return task, np.full(len(items), NO_CLASS, np.int32)
    if task.kind == "multilabel":
        many = np.full((len(items), len(place)), NO_LABEL, np.uint8)
        for i, label in enumerate(raw):
            if label is not None:
                many[i] = 0
                many[i, [place[c] for c in _class_names(label)]] = 1
        return task, many
    one = np.full(len(items), NO_CLASS, np.int32)
    for i, label in enumerate(raw):
        if isinstance(label, tuple):
            errors.append(
                BadInput(
                    f"{name}: task {task.name}: {items[i].key}: expected one class",
                    got=", ".join(_class_names(label)),
                    try_='kind = "multilabel"',
                )
            )
            break
        if label is not None:
            one[i] = place[str(label)]
    return task, one


def _class_names(label: Label) -> tuple[str, ...]:
    """Return the classes in a label; none if there is no label."""
    if label is None:
        return ()
    return tuple(map(str, label)) if isinstance(label, tuple) else (str(label),)


def _numbers(
    task: Task, raw: list[Any], items: list[Item], name: str, errors: list[BadInput]
) -> tuple[Task, NDArray[np.float32]]:
    """Return a regress task with its number of outputs, and its labels (images, outputs)."""
    widths = (len(r) if isinstance(r, tuple) else 1 for r in raw if r is not None)
    width = max(widths, default=1)
    if task.outputs > 1 and width != task.outputs:
        errors.append(
            BadInput(
                f"{name}: task {task.name}: expected {task.outputs} numbers per image",
                got=width,
                try_=f"outputs = {width}",
            )
        )
    values = np.full((len(items), width), np.nan, np.float32)
    for i, label in enumerate(raw):
        if label is None:
            continue
        with np.errstate(over="ignore"):
            row = np.atleast_1d(np.asarray(label, np.float64)).astype(np.float32)
        if row.shape != (width,) or not np.isfinite(row).all():
            errors.append(
                BadInput(
                    f"{name}: task {task.name}: {items[i].key}: expected {width} finite numbers",
                    got=str(label),
                    try_="correct it, or leave it empty",
                )
            )
            break
        values[i] = row
    return Task(task.name, "regress", (), width, task.column, task.unit), values


def _fill_train(
    task: Task, values: NDArray[Any], codes: NDArray[np.uint8], hashes: NDArray[np.float64]
) -> list[str]:
    """Move an image to train for each class without one there; return these classes."""
    if not task.classes:
        return []
    empty = np.flatnonzero(class_counts(task, values[codes == 0]) == 0)
    many = task.kind == "multilabel"
    return [
        task.classes[place]
        for place in empty
        if move_nearest(values[:, place] == 1 if many else values == place, codes, hashes)
    ]


def is_labelled(task: Task, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which images have a label of a task that is not dense."""
    if task.kind == "regress":
        known: NDArray[np.bool_] = ~np.isnan(labels).any(1)
    elif task.kind == "multilabel":
        known = (labels != NO_LABEL).any(1)
    else:
        known = labels != NO_CLASS
    return known


def class_counts(task: Task, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of images of each class."""
    if task.kind == "multilabel":
        return np.asarray((labels == 1).sum(0))
    return np.bincount(labels[labels != NO_CLASS], minlength=len(task.classes))


def check_classes(
    task: Task,
    values: NDArray[Any],
    codes: NDArray[np.uint8],
    name: str,
    errors: list[BadInput],
    warnings: list[str],
) -> None:
    """Append an error for a class that is missing in train, a warning for one in val or test."""
    for code, split in enumerate(SPLITS):
        labels = values[codes == code]
        if not is_labelled(task, labels).any():
            problem, try_ = f"{split} has no labelled image", "label some, or leave out the task"
        else:
            counts: list[int] = class_counts(task, labels).tolist() if task.classes else []
            missing = [c for c, n in zip(task.classes, counts, strict=True) if n == 0]
            if not missing:
                continue
            problem = (
                f"{split} lacks {len(missing)} of {len(task.classes)} classes: "
                f"{shorten(missing, EXAMPLES)}"
            )
            try_ = "add images, or assign images to the splits by name"
        if split == "train":
            errors.append(BadInput(f"{name}: task {task.name}: {problem}", try_=try_))
        else:
            warnings.append(f"task {task.name}: {problem}")


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a key that sorts "2" before "10"; names of equal numbers sort by their spelling."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return tuple(
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ), name
