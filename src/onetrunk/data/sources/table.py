"""`table:FILE`: a CSV, TSV, JSON-lines or Parquet file with columns for paths and labels.

Paths are relative to the table's folder (with either slash) and do not lead out of it. The cells of
a task's `column` hold

- classify, embed: a class;
- multilabel: classes as `a|b`, `a;b` or a JSON list;
- regress: a number, or one number in each of several columns, `x,y`;
- segment, depth, normals: the path of a target (see `onetrunk.data.files.targets`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from onetrunk.data.files.labels import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_not_mistyped,
    empty,
    label_of,
)
from onetrunk.data.files.paths import Root, existing_path, outside, split_of, stamp
from onetrunk.data.files.tables import Row, Rows
from onetrunk.data.files.targets import read_target
from onetrunk.data.sources import Item, Label, SourceOptions
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput, shorten

MAX_BAD = 20  # different problems in one error
USUAL: dict[Kind, tuple[str, ...]] = {  # columns of a task without one, tried after its name
    "classify": LABEL_COLUMNS,
    "embed": LABEL_COLUMNS,
    "multilabel": ("labels", "tags", *LABEL_COLUMNS),
    "regress": ("value", "target"),
}


class TableRows(Protocol):
    """A table: its columns, and its rows by place."""

    columns: list[str]

    def read(self, columns: Sequence[str]) -> Iterator[tuple[str, Row]]: ...


class Table:
    """A table of paths and labels."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.notes: list[str] = []
        path = existing_path(options.base, rest, "table")
        name = f"table:{rest}"
        self._set_up(name, Rows(path, name), Root(path.parent), options)

    def _set_up(self, name: str, rows: TableRows, root: Root, options: SourceOptions) -> None:
        """Find the columns.

        Args:
            name: The name of the table, for messages.
            rows: Its columns and rows.
            root: The folder that its paths start from.
            options: The user's settings.
        """
        self.name, self._rows, self._root = name, rows, root
        self.columns = tuple(rows.columns)
        self._image = self._find("image", options.image, IMAGE_COLUMNS)
        self._split = options.split or ("split" if "split" in self._rows.columns else None)
        if options.split:
            self._find("split", options.split, ())
        self._group = options.group if options.group in self._rows.columns else None
        self._columns: dict[str, list[str]] = {}  # task's name -> its columns
        self._guessed = options.tasks is None
        self.tasks = self._read_tasks(options.tasks)
        self._dense = [task for task in self.tasks if task.dense]

    def items(self) -> Iterator[Item]:
        """Yield the image of every row; rows of the same image must be equal."""
        first: dict[str, tuple[str, int]] = {}  # key -> its first row, the hash of its content
        missing: list[str] = []
        bad: dict[object, tuple[str, int, BadInput]] = {}  # a problem's first row, its rows
        columns = [name for names in self._columns.values() for name in names]
        extra = [name for name in (self._split, self._group) if name]
        for where, row in self._rows.read([self._image, *columns, *extra]):
            if len(bad) == MAX_BAD:
                break
            place = f"{self.name}: {where}"
            try:
                item = self._item(row, place)
            except BadInput as error:
                problem = error.expected.removeprefix(place), error.try_
                begun, count, example = bad.get(problem, (where, 0, error))
                bad[problem] = begun, count + 1, example
                continue
            content = hash((item.where, item.split, item.group, tuple(item.labels.items())))
            before, expected = first.setdefault(item.key, (where, content))
            if content != expected:
                differing = BadInput(
                    f"{self.name}: {before} and {where} differ for {item.key}",
                    try_="keep one of them; for several classes of an image, "
                    'kind = "multilabel" and a|b',
                )
                bad[item.key, where] = where, 1, differing
            elif before == where:
                if item.stamp.startswith("missing"):
                    missing.append(item.key)
                yield item
        if bad:
            errors = [self._repeated(*problem) for problem in bad.values()]
            if len(bad) == MAX_BAD:
                errors.append(
                    BadInput(f"{self.name}: more rows may be bad; {MAX_BAD} problems are listed")
                )
            raise BadInput.several(errors)
        if not first:
            raise BadInput(f"{self.name}: no rows", try_="write a row for each image")
        if len(missing) == len(first):
            raise BadInput(
                f"{self.name}: none of its {len(first)} images exists",
                got=shorten(missing, 3),
                try_=f"paths start at {self._root.folder}",
            )
        lost = [f"{len(missing)} images do not exist ({shorten(missing, 5)})"] if missing else []
        used = [f"columns used for tasks: {shorten(columns)}"] if self._guessed else []
        self.notes = lost + used

    def _repeated(self, where: str, count: int, error: BadInput) -> BadInput:
        """Return the error of a row, with the number of rows that have the same problem."""
        if count == 1:
            return error
        rest = error.expected.removeprefix(f"{self.name}: ")
        return BadInput(
            f"{self.name}: {count:,} rows, the first is {rest}",
            got=error.got,
            available=error.available,
            try_=error.try_,
        )

    def image(self, where: str) -> Path:
        """Return the path of an image."""
        return self._root.open(json.loads(where)[0] if self._dense else where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the dense target whose path is in the task's column."""
        for at, dense in enumerate(self._dense, 1):
            if dense.name == task and (name := json.loads(where)[at]) is not None:
                return read_target(dense, self._root.open(name))
        return None

    def _item(self, row: Row, where: str) -> Item:
        path = self._path(row.get(self._image), where)
        if path is None:
            raise BadInput(f"{where}: expected a path in column {self._image}")
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
        """Raise BadInput for fractions in a column that is only assumed to hold classes."""
        try:
            fraction = isinstance(value, (str, float)) and not float(value).is_integer()
        except (ValueError, OverflowError):
            return
        if fraction:
            raise BadInput(
                f"{where}: column {task.column} holds numbers, not classes",
                got=value,
                try_=f'tasks = {{ {task.name} = {{ kind = "regress", '
                f'column = "{task.column}" }} }}',
            )

    def _read_tasks(self, requested: Sequence[Task] | None) -> tuple[Task, ...]:
        if requested is None:
            known = {name.lower(): name for name in self._rows.columns}
            columns = [known[name] for name in LABEL_COLUMNS if name in known]
            if not columns:
                raise self._no_column("no label column", None, "classify")
            names = ["classify"] if len(columns) == 1 else [name.lower() for name in columns]
            requested = [Task(n, "classify", column=c) for n, c in zip(names, columns, strict=True)]
        tasks = []
        for task in requested:
            columns = self._columns_of(task)
            self._columns[task.name] = columns
            if task.kind == "regress" and len(columns) > 1:
                if task.outputs not in (1, len(columns)):
                    raise BadInput(
                        f"{self.name}: task {task.name}: expected {task.outputs} columns",
                        got=shorten(columns),
                    )
                task = replace(task, outputs=len(columns))
            if task.kind == "segment" and not task.classes:
                raise BadInput(
                    f"{self.name}: task {task.name}: expected the classes of the maps",
                    try_='classes = ["background", …], in the order of their indices',
                )
            tasks.append(task)
        return tuple(tasks)

    def _columns_of(self, task: Task) -> list[str]:
        available = self._rows.columns
        if task.column is not None and task.column not in available and task.kind == "regress":
            names = [name.strip() for name in task.column.split(",")]
            if all(name in available for name in names):
                return names
        check_not_mistyped(self.name, task, available)
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
        try_ = f'{kind} = "COLUMN"'
        if kind not in ("image", "split"):
            try_ = f'tasks = {{ NAME = {{ kind = "{kind}", column = "COLUMN" }} }}'
        return BadInput(f"{self.name}: {what}", got=got, available=self._rows.columns, try_=try_)


SOURCE = Table
