"""A task: one thing predicted from a domain's images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from onetrunk.errors import BadInput

Kind = Literal["classify", "multilabel", "regress", "segment", "depth", "normals", "embed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DENSE: frozenset[str] = frozenset({"segment", "depth", "normals"})
LABELLED: frozenset[str] = frozenset({"classify", "multilabel", "segment", "embed"})  # has classes
INVERSE: frozenset[str] = frozenset({"disparity", "1/m"})  # units of depth in which near is large

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of domains, tasks and runs, inside packs too

NO_CLASS = -1  # classify, embed: this image has no label
NO_LABEL = 255  # multilabel: a whole row of these where the image has no label
NO_PIXEL = 255  # segment: this pixel has no label; so a map has at most 255 classes


def check_name(name: str, what: str) -> str:
    """The name itself, where it may name a domain, a task or a run."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fixed = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-_")[:64]
        raise BadInput(
            f"the name of a {what} has lower-case letters, digits, - and _, at most 64",
            got=str(name),
            try_=f"call it {fixed!r}" if fixed else "choose such a name",
        )
    return name


@dataclass(frozen=True)
class Task:
    """One prediction: its name, its kind, and what its labels are.

    `classes` are known once the domain's source was read (classify, multilabel, segment, embed);
    `outputs` says how many numbers a regress task predicts; `column` is the table's column that
    carries the label, `unit` what a number counts, for people. Depth counts metres, or its inverse
    where the unit is "disparity" or "1/m".
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    outputs: int = 1
    column: str | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "task")
        if isinstance(self.classes, str):  # its letters would be the classes
            raise BadInput(
                f"task {self.name}: classes are a list",
                got=self.classes,
                try_=f"classes = [{self.classes!r}, …]",
            )
        if self.outputs < 1:
            raise BadInput(f"task {self.name}: outputs is at least 1", got=self.outputs)
        if self.kind not in KINDS:
            raise BadInput(f"task {self.name}: unknown kind", got=self.kind, available=KINDS)
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        if len(set(self.classes)) < len(self.classes):
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise BadInput(f"task {self.name}: each class once", got=", ".join(twice[:5]))
        if self.kind == "segment" and len(self.classes) > NO_PIXEL:
            raise BadInput(
                f"task {self.name}: a map has at most 255 classes", got=len(self.classes)
            )

    @property
    def dense(self) -> bool:
        """One prediction a pixel."""
        return self.kind in DENSE

    @property
    def inverse(self) -> bool:
        """Depth as its inverse: near is large, and half as far is twice as large."""
        return self.kind == "depth" and self.unit in INVERSE

    @property
    def width(self) -> int:
        """Channels of the head's output (embed: chosen by the head, 0 here)."""
        if self.kind in ("classify", "multilabel", "segment"):
            return len(self.classes)
        return {"regress": self.outputs, "depth": 1, "normals": 3, "embed": 0}[self.kind]

    def with_classes(self, classes: Sequence[str]) -> Task:
        """The same task over these classes."""
        return replace(self, classes=tuple(classes))


TasksLike = Sequence["Task | str"] | Mapping[str, "str | Mapping[str, Any]"]


def read_tasks(given: TasksLike) -> tuple[Task, ...]:
    """Tasks as a recipe writes them: `["classify"]`, `{name = {kind = …}}`, or Tasks."""
    tasks: list[Task] = []
    if isinstance(given, str):
        raise BadInput("tasks are a list or a table", got=given, try_=f'tasks = ["{given}"]')
    if isinstance(given, Mapping):
        for name, spec in given.items():
            if isinstance(spec, str):
                spec = {"kind": spec}
            if not isinstance(spec, Mapping):
                raise BadInput(
                    f"task {name}: expected a kind or a table", got=spec, available=KINDS
                )
            keys = ("kind", "classes", "outputs", "column", "unit")
            for key in spec:
                if key not in keys:
                    raise BadInput(f"task {name}: unknown key", got=key, available=keys)
            if "kind" not in spec:
                raise BadInput(f"task {name}: its kind is missing", available=KINDS)
            tasks.append(Task(name, **spec))
    else:
        for task in given:
            if isinstance(task, str):
                if task not in KINDS:
                    raise BadInput("unknown kind of task", got=task, available=KINDS)
                task = Task(task, task)
            elif not isinstance(task, Task):
                raise BadInput("expected a kind of task or a Task", got=task, available=KINDS)
            tasks.append(task)
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise BadInput("each task of a domain has a name of its own", got=name)
    return tuple(tasks)
