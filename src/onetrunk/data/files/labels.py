"""Cells of tables, JSON documents and datasets as labels: nothing guessed, nothing renamed.

Blanks around a name are cut; an empty cell, None and a missing key mean "not labelled".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from onetrunk.data.sources import Label
from onetrunk.data.task import Task
from onetrunk.errors import BadInput


def label_of(task: Task, cells: Sequence[Any], where: str) -> Label:
    """The label of a task from the cells of its columns; `where` they stand, for people."""
    if task.kind in ("classify", "embed"):
        return class_name(cells[0], where)
    if task.kind == "multilabel":
        return class_names(cells[0], where)
    return numbers(task, cells, where)


def empty(value: Any) -> bool:
    """Is this cell not filled?"""
    return value is None or (isinstance(value, str) and not value.strip())


def class_name(value: Any, where: str) -> str | None:
    """A class: text, a whole number or yes/no; a number with a fraction is no name."""
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
            try_='write names or whole numbers there, or kind = "regress" for numbers',
        )
    raise BadInput(f"{where}: expected the name of a class", got=type(value).__name__)


def class_names(value: Any, where: str) -> tuple[str, ...] | None:
    """Several classes: `a|b`, `a;b`, or a list; `[]` is an image labelled with none of them."""
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
    """The names in `a|b;c`; a lone separator holds none."""
    return [name for name in re.split(r"[|;]", text) if name.strip()]


def numbers(task: Task, cells: Sequence[Any], where: str) -> float | tuple[float, ...] | None:
    """One number, or as many as the task has outputs, from so many columns or from one list."""
    if len(cells) == 1 and isinstance(cells[0], (list, tuple)):
        cells = cells[0]
    elif len(cells) == 1 and isinstance(cells[0], str) and cells[0].strip().startswith("["):
        cells = _json_list(cells[0], where)
    missing = [empty(cell) for cell in cells]
    if all(missing):
        return None
    if any(missing):
        raise BadInput(f"{where}: some numbers are there and some are not", try_="fill all or none")
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
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _no_number(value, where) from None
    if not math.isfinite(number):
        raise _no_number(value, where)
    return number


def _no_number(value: Any, where: str) -> BadInput:
    return BadInput(
        f"{where}: expected a finite number",
        got=str(value)[:80],
        try_="leave it empty where the number is not known",
    )


def _json_list(text: str, where: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise BadInput(f"{where}: expected a list as JSON", got=text[:80], try_='write ["a", "b"]')
    return found
