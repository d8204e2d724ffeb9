"""A source with renamed classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, Label, Source


class RenamedClasses:
    """Wraps a source and renames its classes.

    Args:
        names: From old names to new ones; None removes a class, whose images then have no label.
            Classes that are not in it keep their names.
    """

    def __init__(self, source: Source, names: Mapping[str, str | None]) -> None:
        self.source = source
        self.names = dict(names)
        self.tasks = tuple(
            task
            if task.dense
            else task.with_classes([n for c in task.classes if (n := self._new(c)) is not None])
            for task in source.tasks
        )

    def __getattr__(self, name: str) -> Any:
        """Return an optional attribute of the source, such as notes, size or flip."""
        if name.startswith("__") or "source" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.source, name)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The source whose classes are renamed."""
        return (self.source,)

    def items(self) -> Iterator[Item]:
        """Yield the same images with the new names."""
        for item in self.source.items():
            yield replace(item, labels={k: self._label(v) for k, v in item.labels.items()})

    def image(self, where: str) -> Raw:
        """Return the source's image."""
        return self.source.image(where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the source's target."""
        return self.source.target(where, task)

    def _new(self, name: str) -> str | None:
        return self.names.get(name, name)

    def _label(self, label: Label) -> Label:
        if isinstance(label, str):
            return self._new(label)
        if isinstance(label, tuple) and any(isinstance(c, str) for c in label):
            names = [self._new(c) for c in label if isinstance(c, str)]
            return tuple(name for name in names if name is not None)
        return label
