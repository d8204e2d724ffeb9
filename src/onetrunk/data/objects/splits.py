"""A source of several: one for each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, Source
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, shorten


class Splits:
    """The images of several sources, each of which is one split.

    Args:
        parts: The sources by "train", "val" and "test".
    """

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self._parts = dict(parts)
        self.notes: list[str] = []
        first, *others = self._parts.items()
        self.tasks = first[1].tasks
        for split, part in others:
            self.tasks = tuple(
                _merged(mine, theirs, first[0], split)
                for mine, theirs in _paired(self.tasks, part.tasks, first[0], split)
            )

    def __getattr__(self, name: str) -> Any:
        """Return an optional attribute that all parts agree on, such as size or flip."""
        if name.startswith("_") or name not in ("size", "flip", "unlabelled", "columns"):
            raise AttributeError(name)
        values = [getattr(part, name, None) for part in self._parts.values()]
        if values[0] is None or any(value != values[0] for value in values):
            raise AttributeError(name)
        return values[0]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the splits."""
        return tuple(self._parts.values())

    def items(self) -> Iterator[Item]:
        """Yield the images of each split; its name is the first part of their keys."""
        self.notes = []
        for split, part in self._parts.items():
            inner: set[str] = set()  # the splits that the source of this one names itself
            for item in part.items():
                inner |= set() if item.split is None else {item.split}
                if len(inner) > 1:
                    raise BadInput(
                        f"expected the images of one split as {split}",
                        got=f"a source with {' and '.join(sorted(inner))}",
                        try_="the folder or the rows of one split, or that source alone",
                    )
                key, where = f"{split}/{item.key}", f"{split}/{item.where}"
                group = None if item.group is None else f"{split}/{item.group}"
                alike = None if item.alike is None else f"{split}/{item.alike}"
                yield replace(item, key=key, where=where, split=split, group=group, alike=alike)
            self.notes += [f"{split}: {note}" for note in getattr(part, "notes", ())]

    def image(self, where: str) -> Raw:
        """Return an image of one split."""
        split, _, rest = where.partition("/")
        return self._parts[split].image(rest)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return a dense target of an image."""
        split, _, rest = where.partition("/")
        return self._parts[split].target(rest, task)


def _paired(
    mine: tuple[Task, ...], theirs: tuple[Task, ...], first: str, split: str
) -> list[tuple[Task, Task]]:
    """Return the tasks of two splits in pairs; raise BadInput unless both have the same."""
    if [(t.name, t.kind) for t in mine] != [(t.name, t.kind) for t in theirs]:
        raise BadInput(
            f"expected the tasks of {first} in {split}",
            got=shorten(f"{t.name} ({t.kind})" for t in theirs),
            available=[f"{t.name} ({t.kind})" for t in mine],
            try_="tasks={…} to name them",
        )
    return list(zip(mine, theirs, strict=True))


def _merged(mine: Task, theirs: Task, first: str, split: str) -> Task:
    """Return a task with the classes of both splits."""
    if mine.classes == theirs.classes:
        return mine
    if mine.dense:  # their maps hold indices of classes
        raise BadInput(
            f"task {mine.name}: expected the classes of {first} in {split}",
            got=shorten(theirs.classes),
            available=mine.classes,
        )
    if not mine.classes or not theirs.classes:
        return mine.with_classes(())  # the names in the labels
    return mine.with_classes([*mine.classes, *(c for c in theirs.classes if c not in mine.classes)])
