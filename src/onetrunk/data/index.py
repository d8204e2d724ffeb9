"""The index of a source: names, splits and labels of its images as columns. Nothing is decoded.

All problems are collected while the list is read, and reported together.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.class_counts import check_classes, class_counts, is_labelled
from onetrunk.data.files.labels import fixed_classes
from onetrunk.data.sources import Item, Label, Source
from onetrunk.data.splitting import (
    EXAMPLES,
    SPLITS,
    check_groups,
    describe,
    given_splits,
    group_in,
    groups_of,
    hash_of,
    is_pattern,
    move_to_train,
    units_of,
)
from onetrunk.data.stratified import (
    LEFT_OUT,
    NOT_GIVEN,
    NOTHING_KNOWN,
    TRAIN,
    Codes,
    KnownSplits,
    Units,
    assign,
)
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.data.user_code import code_of
from onetrunk.display import plural
from onetrunk.errors import BadInput, shorten
from onetrunk.progress import tracked


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
        labels: By task, without dense targets, which are read with the images.
        given: The split that the source gives to each image: 0 for train, 1 for val, 2 for test,
            255 without one.
        units: A hash of each image's group, or else of its key; see `stratified`.
        grouped: Whether some images are in a group.
        joined: The units that stay together in a split; several units may be joined to one.
        fingerprint: A hash of all keys and stamps, which changes with the data.
        pattern: The pattern that found the groups in the keys; None if the source names them.
        code: The code of a user's source, which the pixels depend on; "" for a built-in one.
        notes: Messages of the source.
        split: 0 for train, 1 for val, 2 for test, 3 for an image that is left out.
        by_hash: Which images were assigned to their split by hash.
        how: How the splits were made, for messages.
        warnings: All messages, also those on the splits.
    """

    tasks: tuple[Task, ...]
    keys: Strings
    where: Strings
    labels: dict[str, NDArray[Any]]
    given: Codes
    units: Units
    grouped: bool
    fingerprint: str
    notes: list[str]
    joined: Units
    pattern: str | None = None
    code: str = ""
    split: Codes = field(default_factory=lambda: np.zeros(0, np.uint8))
    by_hash: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    how: str = ""
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the items of one split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @property
    def assigned(self) -> KnownSplits:
        """The splits of all units that were assigned by hash."""
        kept = self.by_hash & (self.split != LEFT_OUT)
        return KnownSplits.of(self.units[kept], self.split[kept])


def read_index(
    source: Source,
    name: str,
    requested: Sequence[Task] | None = None,
    group: str | None = None,
    known: KnownSplits = NOTHING_KNOWN,
) -> Index:
    """Read the complete list of a source once, and divide it into splits.

    Args:
        name: The name of the domain, for messages.
        requested: The tasks to use, which the source must have; None for all tasks it has.
        group: A regular expression that finds the group in an item's key.
        known: The splits of images that were assigned before.
    """
    errors: list[BadInput] = []
    index = _listed(source, name, requested, group, errors)
    index = _divided(index, name, known, errors, bool(getattr(source, "unlabelled", False)))
    if errors:
        raise BadInput.several(errors)
    return index


def divided(
    index: Index,
    name: str,
    known: KnownSplits = NOTHING_KNOWN,
    joined: Units | None = None,
    left_out: NDArray[np.bool_] | None = None,
    unlabelled: bool = False,
) -> Index:
    """Return an index with new splits.

    Args:
        index: The index.
        name: The name of the domain, for messages.
        known: The splits of images that were assigned before.
        joined: For each image, the unit that its own is joined to.
        left_out: Images that are in no split.
        unlabelled: Whether the source has no labels by design.
    """
    errors: list[BadInput] = []
    if joined is not None:
        index = replace(index, joined=joined)
    index = _divided(index, name, known, errors, unlabelled, left_out)
    if errors:
        raise BadInput.several(errors)
    return index


def _listed(
    source: Source,
    name: str,
    requested: Sequence[Task] | None,
    group: str | None,
    errors: list[BadInput],
) -> Index:
    """Return the index without splits; append what is wrong to the errors."""
    listed = tracked(source.items(), f"{name}: listing images")
    items = sorted(listed, key=lambda item: item.key)
    if not items:
        raise BadInput(
            f"{name}: no images in its source", try_="onetrunk data SOURCE shows what is read"
        )
    notes = list(getattr(source, "notes", ()))
    keys = [item.key for item in items]
    if twice := [a for a, b in itertools.pairwise(keys) if a == b]:
        errors.append(
            BadInput(
                f"{name}: the source lists an image twice",
                got=shorten(twice, EXAMPLES),
                try_="list each image once",
            )
        )
    columns = getattr(source, "columns", ())
    groups = groups_of(items, name, group, notes, columns)
    given = given_splits(items, name)
    check_groups(groups, given, name, errors)
    tasks: list[Task] = []
    labels: dict[str, NDArray[Any]] = {}
    for task in _tasks(source, name, requested):
        if not task.dense:
            task, labels[task.name] = _labels(task, items, name, errors)
        tasks.append(task)
    if not tasks:
        errors.append(
            BadInput(
                f"{name}: expected at least one task",
                try_="--task NAME=KIND, or tasks in the recipe",
            )
        )
    units = units_of(items, groups)
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.key}\0{item.stamp}\0".encode("utf-8", "surrogateescape"))
    return Index(
        tasks=tuple(tasks),
        keys=Strings(keys),
        where=Strings(item.where for item in items),
        labels=labels,
        given=given,
        units=units,
        grouped=any(each is not None for each in groups),
        fingerprint=digest.hexdigest(),
        notes=notes,
        joined=units,
        pattern=group if is_pattern(items, group, columns) else None,
        code=code_of(source),
    )


def _divided(
    index: Index,
    name: str,
    known: KnownSplits,
    errors: list[BadInput],
    unlabelled: bool,
    left_out: NDArray[np.bool_] | None = None,
) -> Index:
    """Return the index with splits; append the classes that train lacks to the errors."""
    task = next((t for t in index.tasks if t.kind == "classify"), None)
    names = ["", *(task.classes if task else ())]  # the first is that of images without a label
    strata = np.zeros(len(index), np.int64)
    if task is not None:
        strata = index.labels[task.name].astype(np.int64) - NO_CLASS
    coins = np.array([hash_of(each) % 2 == 0 for each in names])
    used = np.ones(len(index), np.bool_) if left_out is None else ~left_out
    codes = np.full(len(index), LEFT_OUT, np.uint8)
    by_hash = np.zeros(len(index), np.bool_)
    before = known.find(index.units)
    if known.renamed:
        earlier = known.find(_units_before(index, known.renamed))
        before = np.where(earlier == NOT_GIVEN, before, earlier)
    codes[used], by_hash[used] = assign(
        index.joined[used], index.given[used], strata[used], coins, before[used]
    )
    warnings = list(index.notes)
    for task in index.tasks:
        if task.dense:
            continue
        if moved := _fill_train(task, index, codes, by_hash):
            warnings.append(
                f"task {task.name}: some classes had no training image, so one image of each was "
                f"moved to train: {shorten(moved, EXAMPLES)}"
            )
        about = f"{name}: task {task.name}: "
        if not unlabelled and not any(each.expected.startswith(about) for each in errors):
            check_classes(task, index.labels[task.name], codes, name, errors, warnings)
            if line := _unlabelled(task, index.labels[task.name], codes):
                warnings.append(line)
    unit = "group" if index.grouped else "path"
    how = describe(index.given[used], unit, classes=len(names) > 2)
    if kept := int((by_hash & (codes == before)).sum()):
        how += f"; {kept:,} images keep their earlier split"
    return replace(index, split=codes, by_hash=by_hash, how=how, warnings=warnings)


def _units_before(index: Index, renamed: Mapping[str, str]) -> Units:
    """Return the units that the images had before parts of their paths were renamed.

    The groups that a pattern found in the paths had other names then; those of the source did not.
    """
    pattern = None if index.pattern is None else re.compile(index.pattern)
    units = index.units.copy()
    for row, key in enumerate(index.keys):
        old = "/".join(renamed.get(part, part) for part in key.split("/"))
        group = None if pattern is None else group_in(old, pattern)
        if old != key and (pattern is not None or units[row] == hash_of(key)):
            units[row] = hash_of(old if group is None else group)
    return units


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


def _fill_train(task: Task, index: Index, codes: Codes, by_hash: NDArray[np.bool_]) -> list[str]:
    """Move a unit to train for each class without an image there; return these classes."""
    if not task.classes:
        return []
    values = index.labels[task.name]
    empty = np.flatnonzero(class_counts(task, values[codes == TRAIN]) == 0)
    many = task.kind == "multilabel"
    return [
        task.classes[place]
        for place in empty
        if move_to_train(
            values[:, place] == 1 if many else values == place, codes, index.joined, by_hash
        )
    ]


def _unlabelled(task: Task, labels: NDArray[Any], codes: Codes) -> str:
    """Return a line on images without a label; "" for none.

    Splits without any label are not counted, as `check_classes` reports them.
    """
    known = is_labelled(task, labels)
    labelled = [code for code in range(len(SPLITS)) if known[codes == code].any()]
    rows = np.isin(codes, labelled)
    missing = int((rows & ~known).sum())
    if not missing:
        return ""
    return (
        f"task {task.name}: {missing:,} of {plural(int(rows.sum()), 'image')} "
        f"{'has' if missing == 1 else 'have'} no label"
    )


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a key that sorts "2" before "10"; names of equal numbers sort by their spelling."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return tuple(
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ), name
