"""A task: one thing predicted from a domain's images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from onetrunk.display import plural
from onetrunk.errors import BadInput, shorten
from onetrunk.settings import NAME, read_dataclass

Kind = Literal["classify", "multilabel", "regress", "segment", "depth", "normals", "embed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DENSE: frozenset[str] = frozenset({"segment", "depth", "normals"})
LABELLED: frozenset[str] = frozenset({"classify", "multilabel", "segment", "embed"})  # by classes
INVERSE: frozenset[str] = frozenset({"disparity", "1/m"})  # units of depth: near is large
MAX_OUTPUTS = 65_536
NAMED = 3  # classes that `Task.labels` names

NO_CLASS = -1  # classify, embed: the image has no label
NO_LABEL = 255  # multilabel: every value of the row if the image has no label
NO_PIXEL = 255  # segment: the pixel has no label; a map therefore has at most 255 classes


def check_name(name: str, what: str) -> str:
    """Return a valid name of a domain, task or run; raise BadInput for any other name.

    Args:
        what: "domain", "task" or "run", for the error.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fixed = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-_")[:64]
        raise BadInput(
            f"the name of a {what} has lower-case letters, digits, - and _, at most 64",
            got=str(name),
            try_=f"the name {fixed!r}" if fixed else "another name",
        )
    return name


@dataclass(frozen=True)
class Task:
    """One prediction: its name, its kind and its labels."""

    name: str
    kind: Annotated[Kind, Field(description="What is predicted")]
    classes: Annotated[
        tuple[str, ...],
        Field(description="Names of the classes, in order; empty: those of the source"),
    ] = ()
    outputs: Annotated[
        int, Field(ge=1, le=MAX_OUTPUTS, description="Number of values of a regress task")
    ] = 1
    column: Annotated[str | None, Field(description="Column of the table that holds the label")] = (
        None
    )
    unit: Annotated[
        str, Field(description="Unit of the values, for people; depth: metres, disparity or 1/m")
    ] = ""

    def __post_init__(self) -> None:
        check_name(self.name, "task")
        if isinstance(self.classes, str):  # its letters would be the classes
            raise BadInput(
                f"expected a list for the classes of task {self.name}",
                got=self.classes,
                try_=f"classes = [{self.classes!r}, …]",
            )
        if self.outputs < 1:
            raise BadInput(f"expected at least 1 output of task {self.name}", got=self.outputs)
        if self.kind not in KINDS:
            raise BadInput(f"unknown kind of task {self.name}", got=self.kind, available=KINDS)
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise BadInput(
                f"expected each class of task {self.name} once", got=", ".join(repeated[:5])
            )
        if self.kind == "segment" and len(self.classes) > NO_PIXEL:
            raise BadInput(
                f"expected at most {NO_PIXEL} classes of task {self.name}", got=len(self.classes)
            )

    def class_differences(self, before: Task) -> list[str]:
        """Name the classes that this task has and `before` does not, and the reverse."""
        new = [name for name in self.classes if name not in before.classes]
        dropped = [name for name in before.classes if name not in self.classes]
        words = [f"new: {shorten(new, 6)}"] if new else []
        return words + ([f"dropped: {shorten(dropped, 6)}"] if dropped else [])

    @property
    def dense(self) -> bool:
        """Whether every pixel has a prediction."""
        return self.kind in DENSE

    @property
    def inverse(self) -> bool:
        """Whether depth is given as its inverse: half the distance is twice the value."""
        return self.kind == "depth" and self.unit in INVERSE

    @property
    def width(self) -> int:
        """Channels of the head's output (embed: chosen by the head, 0 here)."""
        if self.kind in ("classify", "multilabel", "segment"):
            return len(self.classes)
        return {"regress": self.outputs, "depth": 1, "normals": 3, "embed": 0}[self.kind]

    @property
    def labels(self) -> str:
        """Its classes or values in words: `10 classes: cat, dog, fox, …`."""
        if self.classes:
            more = ", …" if len(self.classes) > NAMED else ""
            names = ", ".join(self.classes[:NAMED]) + more
            return f"{plural(len(self.classes), 'class', 'classes')}: {names}"
        unit = f" in {self.unit}" if self.unit else ""
        return plural(self.outputs, "value") + unit if self.kind == "regress" else self.unit

    def with_classes(self, classes: Sequence[str]) -> Task:
        """Return the task with these classes."""
        return replace(self, classes=tuple(classes))


TasksLike = Sequence["Task | str"] | Mapping[str, "str | Mapping[str, Any]"]


def read_tasks(given: TasksLike) -> tuple[Task, ...]:
    """Return the tasks that are given as a recipe writes them, or as objects.

    Args:
        given: Kinds (`["classify"]`), a table of tasks by name (`{price = {kind = "regress"}}`), or
            Task objects.
    """
    if isinstance(given, str):
        raise BadInput("expected a list or a table", got=given, try_=f'tasks = ["{given}"]')
    if isinstance(given, Mapping):
        read = [_read_task(name, table) for name, table in given.items()]
    else:
        read = [_task_of(item) for item in given]
    names = [task.name for task in read]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadInput("expected a different name for each task", got=", ".join(repeated))
    return tuple(read)


def _read_task(name: str, table: object) -> Task:
    if isinstance(table, str):
        table = {"kind": table}
    if not isinstance(table, Mapping):
        raise BadInput("expected a kind or a table", place=name, got=table, available=KINDS)
    if "kind" not in table:
        raise BadInput("its kind is missing", place=name, available=KINDS)
    classes = table.get("classes", ())
    if isinstance(classes, list | tuple):  # numbers are common names of classes
        classes = [str(value) for value in classes]
    try:
        return read_dataclass(Task, {**table, "name": name, "classes": classes})
    except BadInput as error:
        raise error.within(name) from None


def _task_of(item: Task | str) -> Task:
    if isinstance(item, Task):
        return item
    if isinstance(item, str) and item in KINDS:
        return Task(item, item)
    raise BadInput("unknown kind of task", got=item, available=KINDS)
