"""Labels from cells of tables, JSON documents and datasets.

White space around a name is removed. An empty cell, None and a missing key mean "not labelled".
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from onetrunk.data.sources import Label
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

LABEL_COLUMNS = ("label", "class", "category", "target")  # tried if no task is requested
IMAGE_COLUMNS = ("image", "path", "file", "filename", "filepath")  # tried if none is named
SIMILAR = 0.8  # names that are as similar, from 0 to 1, are taken for a mistake


def label_of(task: Task, cells: Sequence[Any], where: str) -> Label:
    """Return the label of a task.

    Args:
        cells: The cells of the task's columns.
        where: Their place, for messages.
    """
    if task.kind in ("classify", "embed"):
        return class_name(cells[0], where)
    if task.kind == "multilabel":
        return class_names(cells[0], where)
    return numbers(task, cells, where)


def check_not_mistyped(source: str, task: Task, columns: Sequence[str]) -> None:
    """Raise BadInput for a task without a column whose name is nearly that of a column.

    Otherwise a usual column such as `label` would be read in its place.
    """
    if task.column is not None or task.name in (task.kind, *columns):
        return
    if difflib.get_close_matches(task.name, columns, n=1, cutoff=SIMILAR):
        raise BadInput(
            f"{source}: no such column for {task.kind}",
            got=task.name,
            available=columns,
            try_=f'tasks = {{ NAME = {{ kind = "{task.kind}", column = "COLUMN" }} }}',
        )


def empty(value: Any) -> bool:
    """Return whether a cell is empty."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_missing(value: Any) -> bool:
    """Return whether a value in memory stands for no label: None, NaN, or pandas' NA or NaT."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def class_name(value: Any, where: str) -> str | None:
    """Return a class from text, an integer or a boolean; a fraction is not a name."""
    if empty(value):
        return None
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, int)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float):
        raise BadInput(
            f"{where}: expected the name of a class",
            got=value,
            try_='use names or integers, or kind = "regress" for numbers',
        )
    raise BadInput(f"{where}: expected the name of a class", got=type(value).__name__)


def class_names(value: Any, where: str) -> tuple[str, ...] | None:
    """Return classes from `a|b`, `a;b` or a list; `[]` means that none is present."""
    if empty(value):
        return None
    if isinstance(value, str):
        value = _json_list(value, where) if value.strip().startswith("[") else split_names(value)
    if not isinstance(value, (list, tuple)):
        raise BadInput(f"{where}: expected classes as a|b or as a list", got=type(value).__name__)
    names = [class_name(name, where) for name in value]
    if None in names:
        raise BadInput(f"{where}: a class without a name", got=str(value)[:80])
    return tuple(dict.fromkeys(name for name in names if name is not None))


def split_names(text: str) -> list[str]:
    """Return the names in `a|b;c`."""
    return [name for name in re.split(r"[|;]", text) if name.strip()]


def numbers(task: Task, cells: Sequence[Any], where: str) -> float | tuple[float, ...] | None:
    """Return as many numbers as the task has outputs, from as many cells or from one list."""
    if len(cells) == 1 and isinstance(cells[0], (list, tuple)):
        cells = cells[0]
    elif len(cells) == 1 and isinstance(cells[0], str) and cells[0].strip().startswith("["):
        cells = _json_list(cells[0], where)
    missing = [empty(cell) for cell in cells]
    if all(missing):
        return None
    if any(missing):
        raise BadInput(f"{where}: some numbers are missing", try_="fill in all or none")
    if len(cells) != task.outputs:
        raise BadInput(
            f"{where}: task {task.name} has {task.outputs} outputs",
            got=f"{len(cells)} numbers",
            try_=f"outputs = {len(cells)}",
        )
    values = tuple(_number(cell, where) for cell in cells)
    return values[0] if len(values) == 1 else values


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(
            f"{where}: expected a finite number",
            got=str(value)[:80],
            try_="leave it empty if the number is not known",
        )
    return number


def _json_list(text: str, where: str) -> list[Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list):
        raise BadInput(f"{where}: expected a list as JSON", got=text[:80], try_='write ["a", "b"]')
    return values


def read_json(
    text: str | bytes, name: str, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Parse a JSON document; `name` is that of the document, for the error."""
    try:
        return json.loads(text, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: not JSON", got=str(error)[:120]) from None


def unique_names(names: Sequence[str], ids: Sequence[object]) -> list[str]:
    """Return the names of classes, with the id appended to a name that occurs twice."""
    times = Counter(names)
    marked = [f"{n} ({i})" if times[n] > 1 else n for n, i in zip(names, ids, strict=True)]
    return marked if len(set(marked)) == len(marked) else [str(i) for i in ids]


def fixed_classes(source: str, task: Task, classes: Sequence[str]) -> Task:
    """Return the task with the source's classes; raise BadInput if the user gave other ones."""
    if task.classes and task.classes != tuple(classes):  # masks hold indices of classes
        raise BadInput(
            f"{source}: task {task.name}: its classes are fixed by the source",
            got=", ".join(task.classes[:8]),
            available=classes,
            try_="leave out classes",
        )
    return task.with_classes(classes)


def check_kinds(source: str, tasks: Iterable[Task], kinds: Collection[Kind], try_: str) -> None:
    """Raise BadInput for tasks of a kind that a source has no labels for."""
    for task in tasks:
        if task.kind not in kinds:
            raise BadInput(
                f"{source}: task {task.name} is of a kind that this source has no labels for",
                got=task.kind,
                available=sorted(kinds),
                try_=try_,
            )
