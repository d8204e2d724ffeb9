"""A recipe as TOML that people like to read: sections in order, one key a line, what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w
from pydantic import BaseModel

from onetrunk.data.task import Task

COLUMN = 32  # where comments start


def document_of(part: BaseModel, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a table as a file spells them, in order."""
    values = {name: getattr(part, name) for name in type(part).model_fields if name not in without}
    return {name: _plain(name, value) for name, value in values.items()}


def tasks_of(tasks: tuple[Task, ...]) -> list[str] | dict[str, dict[str, Any]]:
    """The short form where each task is named after its kind and says no more."""
    table: dict[str, dict[str, Any]] = {}
    for task in tasks:
        usual = Task(task.name, task.kind)
        table[task.name] = {"kind": task.kind} | {
            key: list(value) if isinstance(value, tuple) else value
            for key in ("column", "classes", "outputs", "unit")
            if (value := getattr(task, key)) != getattr(usual, key)
        }
    if all(spec == {"kind": name} for name, spec in table.items()):
        return list(table)
    return table


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return "" if name in ("image", "group", "split") else "auto"
    if name == "tasks":
        return tasks_of(value)
    if isinstance(value, tuple | list):
        return [_plain("", v) for v in value]
    if isinstance(value, Mapping):
        return {key: _plain("", v) for key, v in value.items()}
    return value


def section(
    head: str, document: Mapping[str, Any], part: type[BaseModel] | None, tables: tuple[str, ...]
) -> list[str]:
    """The lines of one table; `part` explains its keys, `tables` get a table of their own."""
    lines = [head] if head else []
    for key, value in document.items():
        if key in tables and isinstance(value, Mapping):
            continue
        line = f"{_key(key)} = {inline(value)}"
        note = part.model_fields[key].description if part is not None else None
        lines.append(f"{line:{COLUMN}} # {note}" if note else line)
    for key, value in document.items():
        if key in tables and isinstance(value, Mapping):
            lines.append(f"[{head.strip('[]')}.{key}]")
            lines += [f"{_key(name)} = {inline(inner)}" for name, inner in value.items()]
    return lines


def inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {inline(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
