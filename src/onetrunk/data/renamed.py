"""A source whose classes go by other names than its own, or are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, Label, Source


class Called:
    """`names`: from the source's own to those that hold; None of one that is gone, whose images
    have no label then. What is not in it keeps its name."""

    def __init__(self, source: Source, names: Mapping[str, str | None]) -> None:
        self.source = source
        self.names = dict(names)
        self.tasks = tuple(
            task
            if task.dense
            else task.with_classes([now for c in task.classes if (now := self._now(c)) is not None])
            for task in source.tasks
        )

    def __getattr__(self, name: str) -> Any:
        """What a source may have beside: notes, a size, flip."""
        if name.startswith("__") or "source" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.source, name)

    def items(self) -> Iterator[Item]:
        """The same images, under the other names."""
        for item in self.source.items():
            yield replace(item, labels={k: self._label(v) for k, v in item.labels.items()})

    def image(self, where: str) -> Raw:
        """As the source has it."""
        return self.source.image(where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """As the source has it."""
        return self.source.target(where, task)

    def _now(self, name: str) -> str | None:
        return self.names.get(name, name)

    def _label(self, label: Label) -> Label:
        if isinstance(label, str):
            return self._now(label)
        if isinstance(label, tuple) and any(isinstance(c, str) for c in label):
            names = [self._now(c) for c in label if isinstance(c, str)]
            return tuple(name for name in names if name is not None)
        return label
