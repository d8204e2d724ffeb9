"""A domain: a named source of images with its own splits, labels, resolution and whitening."""

from __future__ import annotations

from functools import cached_property

from onetrunk.data.pixels import Fit, Pixels
from onetrunk.data.sources import Source
from onetrunk.data.task import Task, TasksLike, check_name, read_tasks
from onetrunk.errors import wrong


class Domain:
    """What the user says of one domain; nothing is read before it is asked for.

    A domain without a source has no images: it names tasks (with their classes) and a size, which
    is all that a model needs of it.
    """

    def __init__(
        self,
        name: str,
        source: str | Source | None = None,
        tasks: TasksLike | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        fit: Fit = "squash",
        flip: bool | None = None,
        weight: float = 1.0,
    ) -> None:
        self.name = check_name(name, "domain")
        self.source = source
        self.size = size
        self.fit = fit
        self.flip = flip
        self.weight = weight
        self._tasks = None if tasks is None else read_tasks(tasks)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Its tasks with their classes."""
        if self._tasks is None:
            raise wrong(f"domain {self.name}: a domain without a source names its tasks")
        return self._tasks

    @cached_property
    def pixels(self) -> Pixels:
        """What it does to an image, whitening included."""
        size = self.size or 64
        return Pixels((size, size) if isinstance(size, int) else size, self.fit)
