"""`table:FILE`: a CSV, TSV, JSON-lines or Parquet file with a path and label columns.

Paths are relative to the table's folder (either slash) and stay inside it. A task's `column` names
its cells: a class (classify, embed), classes as `a|b`, `a;b` or a JSON list (multilabel), a number
or several columns `x,y` (regress), the path of a target (segment, depth, normals: see `dense`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.files.labels import empty, label_of
from onetrunk.data.files.paths import (
    LABEL_COLUMNS,
    Root,
    outside,
    place,
    some,
    split_of,
    stamp,
)
from onetrunk.data.files.tables import Row, Rows
from onetrunk.data.files.targets import read_target
from onetrunk.data.sources import Item, Label, SourceOptions
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

IMAGE_COLUMNS = ("image", "path", "file", "filename", "filepath")
MOST_SAID = 20  # bad rows named in one message
USUAL: dict[Kind, tuple[str, ...]] = {  # of a task that names no column, after its own name
    "classify": LABEL_COLUMNS,
    "embed": LABEL_COLUMNS,
    "multilabel": ("labels", "tags", *LABEL_COLUMNS),
    "regress": ("value", "target"),
}


class Table:
    """A table of paths and labels."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        self.name = f"table:{rest}"
        self.notes: list[str] = []
        path = place(asked.base, rest, "table")
        self._rows = Rows(path, self.name)
        self._root = Root(path.parent)
        self._image = self._find("image", asked.image, IMAGE_COLUMNS)
        self._split = asked.split or ("split" if "split" in self._rows.columns else None)
        if asked.split:
            self._find("split", asked.split, ())
        self._group = asked.group if asked.group in self._rows.columns else None
        self._columns: dict[str, list[str]] = {}  # task's name -> its columns
        self._guessed = asked.tasks is None
        self.tasks = self._read_tasks(asked.tasks)
        self._dense = [task for task in self.tasks if task.dense]

    def items(self) -> Iterator[Item]:
        """Every row's image; two rows of one image must say the same."""
        met: dict[str, tuple[str, int]] = {}  # key -> its place, the hash of what it says
        missing: list[str] = []
        bad: list[str] = []  # rows that cannot be used, said at once
        columns = [name for names in self._columns.values() for name in names]
        extra = [name for name in (self._split, self._group) if name]
        for where, row in self._rows.read([self._image, *columns, *extra]):
            try:
                item = self._item(row, where)
            except BadInput as error:
                bad.append(str(error))
                if len(bad) == MOST_SAID:
                    break
                continue
            says = hash((item.where, item.split, item.group, tuple(item.labels.items())))
            before, said = met.setdefault(item.key, (where, says))
            if said != says:
                bad.append(
                    f"{before} and {where} say different things of {item.key} (keep one of them; "
                    'several classes of one image are kind = "multilabel", written a|b)'
                )
            elif before == where:
                if item.stamp.startswith("missing"):
                    missing.append(item.key)
                yield item
        if bad:
            more = [f"and perhaps more: {MOST_SAID} are shown"] if len(bad) >= MOST_SAID else []
            raise BadInput(f"{self.name}: " + " | ".join(bad + more))
        if not met:
            raise BadInput(f"{self.name}: no rows", try_="write a row for each image")
        if len(missing) == len(met):
            raise BadInput(
                f"{self.name}: none of its {len(met)} images exists",
                got=some(missing, 3),
                try_="paths start at the table's folder",
            )
        lost = [f"{len(missing)} images do not exist ({some(missing, 5)})"] if missing else []
        taken = [f"columns taken for tasks: {some(columns)}"] if self._guessed else []
        self.notes = lost + taken

    def image(self, where: str) -> Path:
        """The file's path."""
        return self._root.open(json.loads(where)[0] if self._dense else where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """The dense target whose path stands in the task's column."""
        for at, asked in enumerate(self._dense, 1):
            if asked.name == task and (name := json.loads(where)[at]) is not None:
                return read_target(asked, self._root.open(name))
        return None

    def _item(self, row: Row, where: str) -> Item:
        path = self._path(row.get(self._image), where)
        if path is None:
            raise BadInput(f"{where}: no path in column {self._image}")
        labels: dict[str, Label] = {}
        targets: list[str | None] = []
        for task in self.tasks:
            cells = [row.get(column) for column in self._columns[task.name]]
            if task.dense:
                targets.append(self._path(cells[0], where))
            else:
                if self._guessed:
                    self._no_fraction(cells[0], task, where)
                place = f"{where}, column {','.join(self._columns[task.name])}"
                labels[task.name] = label_of(task, cells, place)
        files = [path, *(target for target in targets if target)]
        group = row.get(self._group) if self._group else None
        return Item(
            path,
            json.dumps([path, *targets]) if targets else path,
            "+".join(stamp(self._root.folder / name) for name in files),
            self._split_of(row.get(self._split), where) if self._split else None,
            None if empty(group) else str(group),
            labels,
        )

    def _path(self, value: Any, where: str) -> str | None:
        if empty(value):
            return None
        if not isinstance(value, str):
            raise BadInput(f"{where}: expected a path", got=type(value).__name__)
        path = self._root.find(value.strip())
        if path is None:
            raise outside(where, value)
        return self._root.key(path)

    def _split_of(self, value: Any, where: str) -> str:
        split = split_of(value) if isinstance(value, str) else None
        if split is None:
            raise BadInput(
                f"{where}: unknown split in column {self._split}",
                got="an empty cell" if empty(value) else str(value),
                available=("train", "val", "test"),
                try_="name one of them in every row, or leave the column out",
            )
        return split

    @staticmethod
    def _no_fraction(value: Any, task: Task, where: str) -> None:
        """A column that nobody named a class is not taken for one where it holds measurements."""
        try:
            fraction = isinstance(value, (str, float)) and not float(value).is_integer()
        except (ValueError, OverflowError):
            return
        if fraction:
            raise BadInput(
                f"{where}: column {task.column} holds numbers, not classes",
                got=value,
                try_=f'say what it is: tasks = {{ {task.name} = {{ kind = "regress", '
                f'column = "{task.column}" }} }}',
            )

    def _read_tasks(self, asked: Sequence[Task] | None) -> tuple[Task, ...]:
        if asked is None:
            known = {name.lower(): name for name in self._rows.columns}
            found = [known[name] for name in LABEL_COLUMNS if name in known]
            if not found:
                raise self._no_column("no label column", None, "classify")
            names = ["classify"] if len(found) == 1 else [name.lower() for name in found]
            asked = [Task(n, "classify", column=c) for n, c in zip(names, found, strict=True)]
        tasks = []
        for task in asked:
            columns = self._columns_of(task)
            self._columns[task.name] = columns
            if task.kind == "regress" and len(columns) > 1:
                if task.outputs not in (1, len(columns)):
                    raise BadInput(f"task {task.name}: {task.outputs} outputs", got=some(columns))
                task = replace(task, outputs=len(columns))
            if task.kind == "segment" and not task.classes:
                raise BadInput(
                    f"{self.name}: task {task.name}: a table does not name the classes of a map",
                    try_='classes = ["background", …], in the order of their indices',
                )
            tasks.append(task)
        return tuple(tasks)

    def _columns_of(self, task: Task) -> list[str]:
        there = self._rows.columns
        if task.column is not None and task.column not in there and task.kind == "regress":
            names = [name.strip() for name in task.column.split(",")]
            if all(name in there for name in names):
                return names
        return [self._find(task.kind, task.column, (task.name, *USUAL.get(task.kind, ())))]

    def _find(self, kind: str, column: str | None, usual: Sequence[str]) -> str:
        if column is not None:
            if column in self._rows.columns:
                return column
            raise self._no_column(f"no such column for {kind}", column, kind)
        for name in usual:
            if name in self._rows.columns:
                return name
        raise self._no_column(f"no column for {kind} ({', '.join(usual)})", None, kind)

    def _no_column(self, what: str, got: str | None, kind: str) -> BadInput:
        column = "COLUMN"
        if kind in ("image", "split"):
            next = f'{kind} = "{column}"'
        else:
            next = f'tasks = {{ NAME = {{ kind = "{kind}", column = "{column}" }} }}'
        return BadInput(f"{self.name}: {what}", got=got, available=self._rows.columns, try_=next)


SOURCE = Table
