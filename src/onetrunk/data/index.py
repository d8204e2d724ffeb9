"""A source's items as columns: names, splits, labels as numbers. Nothing is decoded here.

Everything that can be wrong with the list itself is found while it is read, and said at once.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.listing import Item
from onetrunk.data.sources import Source
from onetrunk.data.splitting import SPLITS, groups_of, listed, move_nearest, split_codes
from onetrunk.data.strings import Strings
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.errors import BadInput


@dataclass
class Index:
    """The columns of a source's list, in the order of its keys."""

    tasks: tuple[Task, ...]
    keys: Strings  # names for people
    where: Strings  # names for the source
    split: NDArray[np.uint8]  # 0 train, 1 val, 2 test
    labels: dict[str, NDArray[Any]]  # by task; dense targets are read with the image
    how: str  # how the splits were made, for people
    fingerprint: str  # of all keys and stamps: changes when the data does
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: str) -> NDArray[np.int64]:
        """The positions of one split's items."""
        return np.flatnonzero(self.split == SPLITS.index(split))


_MOVED = (
    "task {}: the hash left these classes no image to learn from, so one of each is moved there"
)


def read_index(
    source: Source, name: str, asked: Sequence[Task] | None = None, group: str | None = None
) -> Index:
    """Read the whole list of a source once; `name` is the domain's, for the messages.

    `asked` are the tasks that the user named: all of them, and no others, must be the source's.
    """
    items = sorted(source.items(), key=lambda item: item.key)
    if not items:
        raise BadInput(
            f"{name}: no images in its source", try_="onetrunk data SOURCE shows what is read"
        )
    problems: list[str] = []
    warnings = list(getattr(source, "notes", ()))
    keys = [item.key for item in items]
    twice = [a for a, b in itertools.pairwise(keys) if a == b]
    if twice:
        problems.append(
            listed("the source names an image twice", twice) + "; try: name each image once"
        )
    groups = groups_of(items, name, group, warnings)
    codes, hashed, how = split_codes(items, groups, name, problems)
    tasks: list[Task] = []
    labels: dict[str, NDArray[Any]] = {}
    for task in _chosen(source, name, asked):
        if not task.dense:
            known = len(problems)
            task, labels[task.name] = _numbers(task, items, problems)
            moved = _learn_every(task, labels[task.name], codes, hashed)
            if moved:
                warnings.append(listed(_MOVED.format(task.name), moved))
            if len(problems) == known and not getattr(source, "unlabelled", False):
                check_classes(task, labels[task.name], codes, problems, warnings)
        tasks.append(task)
    if not tasks:
        problems.append("it names no task; try: --task NAME=KIND, or tasks in the recipe")
    if problems:
        raise BadInput.several([BadInput(f"{name}: {line}") for line in problems])
    print_of = hashlib.sha256()
    for item in items:
        print_of.update(f"{item.key}\0{item.stamp}\0".encode("utf-8", "surrogateescape"))
    return Index(
        tuple(tasks),
        Strings(keys),
        Strings(item.where for item in items),
        codes,
        labels,
        how,
        print_of.hexdigest(),
        warnings,
    )


def _chosen(source: Source, name: str, asked: Sequence[Task] | None) -> list[Task]:
    """The tasks that the user asked for, as the source knows them; all where none were."""
    if asked is None:
        return list(source.tasks)
    own = {task.name: task for task in source.tasks}
    chosen = []
    for task in asked:
        if task.name not in own or own[task.name].kind != task.kind:
            raise BadInput(
                f"{name}: its source has no such task",
                got=f"{task.name} ({task.kind})",
                available=[f"{t.name} ({t.kind})" for t in source.tasks],
            )
        known = own[task.name].classes
        if task.dense and task.classes and known and task.classes != known:
            # a map holds numbers: other names, or another order, would rename what it shows
            raise BadInput(
                f"{name}: task {task.name}: the source's maps have their classes in an order",
                got=", ".join(task.classes),
                available=known,
                try_="leave classes away",
            )
        chosen.append(own[task.name].with_classes(task.classes or known))
    return chosen


def _numbers(task: Task, items: list[Item], problems: list[str]) -> tuple[Task, NDArray[Any]]:
    """Labels as an array, and the task with its classes."""
    raw = [item.labels.get(task.name) for item in items]
    if task.kind == "regress":
        width = max(
            (len(r) if isinstance(r, tuple) else 1 for r in raw if r is not None), default=1
        )
        if task.outputs > 1 and width != task.outputs:
            problems.append(
                f"task {task.name}: expected {task.outputs} numbers an image; got: {width}; "
                f"try: outputs = {width}"
            )
        values = np.full((len(items), width), np.nan, np.float32)
        for i, r in enumerate(raw):
            if r is not None:
                with np.errstate(over="ignore"):
                    row = np.atleast_1d(np.asarray(r, np.float64)).astype(np.float32)
                if row.shape != (width,) or not np.isfinite(row).all():
                    problems.append(
                        f"task {task.name}: {items[i].key}: expected {width} finite "
                        f"numbers; got: {r}; try: mend it, or leave it empty"
                    )
                    break
                values[i] = row
        return Task(task.name, "regress", (), width, task.column, task.unit), values
    met = Counter[str]()
    for r in raw:
        if isinstance(r, tuple):
            met.update(str(c) for c in r)
        elif r is not None:
            met[str(r)] += 1
    if not task.classes:
        task = task.with_classes(sorted(met, key=natural))
    place = {c: i for i, c in enumerate(task.classes)}
    outside = [c for c in met if c not in place]
    if outside:
        example = next(
            i.key
            for i, r in zip(items, raw, strict=True)
            if r is not None and (outside[0] in r if isinstance(r, tuple) else str(r) == outside[0])
        )
        problems.append(
            str(
                BadInput(
                    f"task {task.name}: {example}: a label outside the classes",
                    got=outside[0],
                    available=task.classes,
                    try_="mend the label, or add it to the classes",
                )
            )
        )
        return task, np.full(len(items), NO_CLASS, np.int32)
    if task.kind == "multilabel":
        many = np.full((len(items), len(place)), NO_LABEL, np.uint8)
        for i, r in enumerate(raw):
            if r is not None:
                many[i] = 0
                many[i, [place[str(c)] for c in (r if isinstance(r, tuple) else (r,))]] = 1
        return task, many
    one = np.full(len(items), NO_CLASS, np.int32)
    for i, r in enumerate(raw):
        if isinstance(r, tuple):
            problems.append(
                f"task {task.name}: {items[i].key}: expected one class; got: {r}; "
                'try: kind = "multilabel"'
            )
            break
        if r is not None:
            one[i] = place[str(r)]
    return task, one


def _learn_every(
    task: Task, values: NDArray[Any], codes: NDArray[np.uint8], hashed: NDArray[np.float64]
) -> list[str]:
    """Classes of which the hash left none in train; each has one there now."""
    if not task.classes:
        return []
    empty = np.flatnonzero(_counts(task, values[codes == 0]) == 0)
    many = task.kind == "multilabel"
    return [
        task.classes[place]
        for place in empty
        if move_nearest(values[:, place] == 1 if many else values == place, codes, hashed)
    ]


def _counts(task: Task, part: NDArray[Any]) -> NDArray[np.int64]:
    """Images of each class."""
    if task.kind == "multilabel":
        return np.asarray((part == 1).sum(0))
    return np.bincount(part[part != NO_CLASS], minlength=len(task.classes))


def check_classes(
    task: Task,
    values: NDArray[Any],
    codes: NDArray[np.uint8],
    problems: list[str],
    warnings: list[str],
) -> None:
    """A class missing from train is an error, from val or test a warning."""
    for code, split in enumerate(SPLITS):
        part = values[codes == code]
        if task.kind == "multilabel":
            labelled = part[(part != NO_LABEL).all(1)] if task.classes else part[:0]
        elif task.kind == "regress":
            labelled = part[~np.isnan(part).any(1)]
        else:
            labelled = part[part != NO_CLASS]
        if len(labelled) == 0:
            (problems if split == "train" else warnings).append(
                f"task {task.name}: {split} has no labelled image"
                + ("; try: label some, or leave the task out" if split == "train" else "")
            )
            continue
        counts: list[int] = _counts(task, labelled).tolist() if task.classes else []
        empty = [c for c, n in zip(task.classes, counts, strict=True) if n == 0]
        if empty:
            (problems if split == "train" else warnings).append(
                listed(
                    f"task {task.name}: {split} lacks {len(empty)} of {len(task.classes)} classes",
                    empty,
                )
                + ("; try: add images, or name the split" if split == "train" else "")
            )


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sorts "2" before "10", and names as names; "01" and "1" by their spelling."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return tuple(
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ), name
