"""Pairs (image, label) of a sequence or of a torch dataset as a source.

An image that is given by its path has that as its key, relative to the domain's `base` where it
lies inside. Any other image has a hash of its content, so that splits do not depend on positions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset

from onetrunk.data.files.labels import check_kinds, is_missing, label_of
from onetrunk.data.files.paths import stamp
from onetrunk.data.objects.images import ContentKeys, digest_of, is_path, key_of, path_of, raw_of
from onetrunk.data.pixels import BadImage, Raw, reason_of
from onetrunk.data.sources import Item, Label, NoTargets, SourceOptions
from onetrunk.data.task import Kind, Task, check_name
from onetrunk.display import plural
from onetrunk.errors import BadInput, shorten
from onetrunk.progress import tracked

KINDS: tuple[Kind, ...] = ("classify", "embed", "multilabel", "regress")
PAIR = "(image, label)"
UNREADABLE = "unreadable"  # the stamp of an image that could not be read
CHECKED, READS = 8, 4  # items of a dataset that are read several times, and how often


class Pairs(NoTargets):
    """A sequence of (image, label).

    Args:
        things: Anything with a length whose items are pairs; read again for every image.
        options: The user's settings.
        classes: The names of labels that are numbers of classes.
        notes: Messages for the user.
    """

    def __init__(
        self,
        things: Any,
        options: SourceOptions,
        classes: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.name = f"a {type(things).__name__}"
        self.notes = list(notes)
        self._things, self._base, self._classes = things, options.base, list(classes)
        if not len(things):
            raise BadInput(f"{self.name}: expected at least one {PAIR}", got="none")
        self._in_memory = isinstance(things, list | tuple)
        if not self._in_memory:
            self._check_repeatable()
        self._labels: list[Any] = []
        self._keys: list[tuple[str, str, str | None]] = []  # key, stamp and first image alike
        self._list_all()
        self.tasks = self._read_tasks(options.tasks)

    def items(self) -> Iterator[Item]:
        """Yield every image once."""
        many = {task.name for task in self.tasks} if len(self.tasks) > 1 else set()
        for index, ((key, mark, alike), value) in enumerate(
            zip(self._keys, self._labels, strict=True)
        ):
            labels: dict[str, Label] = {}
            for task in self.tasks:
                cell = value.get(task.name) if isinstance(value, Mapping) else value
                if many and not isinstance(value, Mapping | None):
                    raise BadInput(
                        f"{self.name}: item {index}: expected a label for each task",
                        got=str(value)[:80],
                        try_=f"(image, {{{', '.join(f'{name!r}: …' for name in sorted(many))}}})",
                    )
                labels[task.name] = label_of(
                    task, [self._named(task, cell)], f"{self.name}: item {index}"
                )
            yield Item(key, str(index), mark, labels=labels, alike=alike)

    def image(self, where: str) -> Raw:
        """Return an image: the path of its file, or the image itself."""
        index = int(where)
        raw = raw_of(image := self._pair(index)[0], self._base)
        listed = self._keys[index][1]
        if not self._in_memory and not is_path(image) and listed != UNREADABLE:
            self._check_same(index, {listed, digest_of(raw)})
        return raw

    def _pair(self, index: int) -> tuple[Any, Any]:
        try:
            pair = self._things[index]
        except Exception as error:  # a user's dataset may raise anything
            raise BadImage(reason_of(error)) from None
        if isinstance(pair, tuple | list) and len(pair) == 2:
            return pair[0], pair[1]
        got, try_ = self._advice(index, pair)
        raise BadInput(f"{self.name}: item {index}: expected {PAIR}", got=got, try_=try_)

    def _advice(self, index: int, item: Any) -> tuple[str, str | None]:
        """Return what an item is that is not a pair, and what to try."""
        if isinstance(item, Mapping):
            names = [str(name) for name in item]
            image, label = names[:2] if len(names) > 1 else ("image", "label")
            values = f"(row[{image!r}], row[{label!r}])"
            return (
                f"a dictionary with {shorten(names, 5)}",
                f"pandas.DataFrame(rows), or {values} for each row"
                if self._in_memory
                else f"a Dataset whose __getitem__ returns {values}",
            )
        got = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        if not (self._in_memory and len(self._things) == 2 and index == 0):
            return got, None
        # only a list or tuple is iterated: a dataset may have no end
        lengths = {len(each) for each in self._things if hasattr(each, "__len__")}
        both = " and ".join(map(str, lengths))
        return got, f"list(zip(images, labels, strict=True)), of {both}"

    def _check_repeatable(self) -> None:
        """Raise BadInput for a dataset with random transforms: its images have no fixed content."""
        for index in np.unique(np.linspace(0, len(self._things) - 1, CHECKED).astype(int)).tolist():
            digests = set()
            try:
                for _ in range(READS):
                    image = self._pair(index)[0]
                    if is_path(image):
                        break
                    digests.add(digest_of(raw_of(image, self._base)))
            except BadImage:
                continue  # counted later
            self._check_same(index, digests)

    def _check_same(self, index: int, digests: Collection[str]) -> None:
        """Raise BadInput if an item had several contents."""
        if len(digests) > 1:
            raise BadInput(
                f"{self.name}: expected the same image each time it is read",
                got=f"item {index} differs, as by a random transform",
                try_="the dataset without random transforms; onetrunk augments: augment={…}",
            )

    def _list_all(self) -> None:
        keys, missing = ContentKeys(), []
        bad: list[tuple[int, BadImage]] = []
        alike: str | None
        count = len(self._things)
        for index in tracked(range(count), f"{self.name}: reading items", count):
            label = None
            try:
                image, label = self._pair(index)
                if is_path(image):
                    path = path_of(image, self._base)
                    mark = stamp(path)
                    missing += [str(image)] if mark == "missing" else []
                    key, alike = key_of(path, self._base), None
                else:
                    raw = raw_of(image, self._base)
                    mark = digest_of(raw)
                    key, alike = keys.of(mark)
            except BadImage as error:  # counted when it is decoded
                bad.append((index, error))
                key, mark, alike = f"item {index}", UNREADABLE, None
            self._labels.append(_plain(label))
            self._keys.append((key, mark, alike))
        if len(bad) == len(self._things):
            index, reason = bad[0]
            raise BadInput(
                f"{self.name}: none of its {plural(len(bad), 'image')} can be read",
                got=f"item {index}: {reason}",
                try_="paths, pictures, or arrays (H, W, 3) of 0 to 255 as uint8 or of floats from "
                "0 to 1",
            )
        if len(missing) == len(self._things):
            raise BadInput(
                f"{self.name}: none of its {len(missing)} images exists",
                got=shorten(missing, 3),
                try_="full paths, or base=FOLDER, the folder that the paths start from",
            )
        if missing:
            self.notes.append(f"{len(missing)} images do not exist ({shorten(missing, 5)})")
        if not self._in_memory and not is_path(self._pair(0)[0]):
            self.notes.append("all items were read once, to list their labels and contents")

    def _read_tasks(self, requested: Sequence[Task] | None) -> tuple[Task, ...]:
        if requested is None:
            requested = self._infer()
        check_kinds(self.name, requested, KINDS, "folder: or table: for dense targets")
        by_number = bool(self._classes)
        return tuple(
            task.with_classes(self._classes)
            if by_number and not task.classes and task.kind != "regress"
            else task
            for task in requested
        )

    def _infer(self) -> tuple[Task, ...]:
        """Return the tasks that the labels are for."""
        labels = [(i, label) for i, label in enumerate(self._labels) if label is not None]
        if not labels:
            raise BadInput(
                f"{self.name}: no item has a label",
                try_='"unlabelled:FOLDER" for distillation, or labels that are not None',
            )
        if any(isinstance(label, Mapping) for _, label in labels):
            columns: dict[str, list[tuple[int, Any]]] = {}
            for i, label in labels:
                if not isinstance(label, Mapping):
                    raise self._mixed(i, label, "a dictionary by task")
                for name, value in label.items():
                    check_name(name, "task")
                    columns.setdefault(name, [])
                    if value is not None:
                        columns[name].append((i, value))
            return tuple(self._task(name, values) for name, values in columns.items())
        return (self._task(None, labels),)

    def _task(self, name: str | None, labels: Sequence[tuple[int, Any]]) -> Task:
        """Return the task of one label for each image; by default it has the name of its kind."""
        kinds: dict[Kind, int] = {}  # the first item of each kind
        for i, label in labels:
            if (each := _kind(label)) is not None:
                kinds.setdefault(each, i)
        for i, label in labels:
            if _kind(label) is None:
                raise BadInput(
                    f"{self.name}: item {i}: expected a class as text or whole number, a list of "
                    "classes, a number, or a dictionary of these by task",
                    got=type(label).__name__,
                )
        if set(kinds) == {"classify", "regress"} and all(
            isinstance(label, int | float) for _, label in labels
        ):
            kinds = {"regress": 0}  # whole numbers among others
        if len(kinds) > 1:
            first, second, *_ = sorted(kinds, key=kinds.__getitem__)
            raise self._mixed(
                kinds[second], self._labels[kinds[second]], f"{first} labels as before"
            )
        kind: Kind = next(iter(kinds), "classify")
        outputs = {
            len(label) for _, label in labels if kind == "regress" and isinstance(label, list)
        }
        return Task(name or kind, kind, outputs=max(outputs, default=1))

    def _mixed(self, index: int, label: Any, expected: str) -> BadInput:
        return BadInput(
            f"{self.name}: item {index}: expected {expected}",
            got=str(label)[:80],
            try_='labels of one kind, or tasks=["classify"] to say which',
        )

    def _named(self, task: Task, value: Any) -> Any:
        """Return the class of a number, for datasets that number their classes."""
        if not self._classes or task.kind == "regress":
            return value
        if isinstance(value, list):
            return [self._named(task, each) for each in value]
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(self._classes):
                raise BadInput(
                    f"{self.name}: a label outside the classes", got=value, available=self._classes
                )
            return self._classes[value]
        return value


def pairs_of(things: Any, options: SourceOptions) -> Pairs:
    """Return the source of a sequence of pairs, or of a dataset; files are not decoded twice."""
    if isinstance(things, IterableDataset):
        raise BadInput(
            "expected a dataset whose items can be read in any order",
            got=type(things).__name__,
            try_="list(dataset), if it fits into memory",
        )
    base, places = things, None
    while isinstance(base, Subset):  # of random_split and the like
        places = [int(base.indices[i]) for i in (range(len(base)) if places is None else places)]
        base = base.dataset
    classes = [str(name) for name in getattr(base, "classes", None) or ()]
    if classes and getattr(base, "target_transform", None) is not None:
        note = "the dataset's classes are not used as names, because it has a target_transform"
        return Pairs(things, options, notes=[note])
    if _only_lists_files(base):
        chosen = base.samples if places is None else [base.samples[i] for i in places]
        used = any(getattr(base, key, None) is not None for key in ("transform", "transforms"))
        note = "the dataset's transform is not used: size=, fit= and augment= are set here"
        pairs = Pairs(list(chosen), options, classes, [note] if used else [])
        pairs.name = f"a {type(base).__name__}"
        return pairs
    return Pairs(things, options, classes)


def _only_lists_files(dataset: Any) -> bool:
    """Return whether a dataset's items are the files and labels in its `samples`.

    So are those of torchvision's ImageFolder and DatasetFolder, apart from their transform, unless
    the user has given them another way to load an image or to make an item.
    """
    if not any(each.__module__ == "torchvision.datasets.folder" for each in type(dataset).__mro__):
        return False
    from torchvision.datasets.folder import DatasetFolder, default_loader

    return (
        isinstance(dataset, DatasetFolder)
        and type(dataset).__getitem__ is DatasetFolder.__getitem__
        and dataset.loader is default_loader
        and dataset.target_transform is None
    )


def _plain(label: Any) -> Any:
    """Return a label in Python's own types; None for a missing one."""
    if isinstance(label, Mapping):
        return {key: _plain(value) for key, value in label.items()}
    if isinstance(label, set | frozenset):
        return sorted((_values(each) for each in label), key=str)
    label = _values(label)
    if is_missing(label) or (isinstance(label, list) and label and all(map(is_missing, label))):
        return None
    return label


def _values(label: Any) -> Any:
    if isinstance(label, torch.Tensor | np.ndarray):
        return label.tolist()
    if isinstance(label, np.generic):
        return label.item()
    return [_values(each) for each in label] if isinstance(label, list | tuple) else label


def _kind(label: Any) -> Kind | None:
    if isinstance(label, str | int):  # bool is an int
        return "classify"
    if isinstance(label, float):
        return "regress"
    if isinstance(label, list):
        if all(isinstance(each, str | int) for each in label):
            return "multilabel"
        if all(isinstance(each, int | float) for each in label):
            return "regress"
    return None
