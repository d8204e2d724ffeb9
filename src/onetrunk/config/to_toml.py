"""Write settings as TOML: one key per line, with its description as a comment."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from onetrunk.data.task import Task
from onetrunk.settings import Settings, comment, fields_of, spelled_none, tables_in

COLUMN = 32  # where comments start


def document_of(settings: BaseModel) -> dict[str, Any]:
    """Return the values of settings by key, in order, as written in a file."""
    document = {
        name: spelled_none(field) if (value := getattr(settings, name)) is None else spelled(value)
        for name, field in fields_of(type(settings)).items()
    }
    return {name: value for name, value in document.items() if value is not None}


def spelled(value: Any) -> Any:
    """Return a value as written in a file."""
    if isinstance(value, BaseModel):
        return document_of(value)
    if isinstance(value, tuple | list):
        if value and all(isinstance(item, Task) for item in value):
            return tasks_of(value)
        return [spelled(item) for item in value]
    if isinstance(value, Mapping):
        return {key: spelled(inner) for key, inner in value.items()}
    return value


def tasks_of(tasks: tuple[Task, ...] | list[Task]) -> list[str] | dict[str, dict[str, Any]]:
    """Return tasks as a list of kinds, or as a table if they have other settings."""
    table: dict[str, dict[str, Any]] = {}
    for task in tasks:
        default = Task(task.name, task.kind)
        table[task.name] = {"kind": task.kind} | {
            key: spelled(value)
            for key in fields_of(Task)
            if (value := getattr(task, key)) != getattr(default, key)
        }
    if all(keys == {"kind": name} for name, keys in table.items()):
        return list(table)
    return table


def settings_to_toml(settings: BaseModel) -> str:
    """Return settings and their tables as TOML, with the description of each key once."""
    fields, document = fields_of(type(settings)), document_of(settings)
    root = {key: value for key, value in document.items() if not tables_in(fields[key])}
    sections = [_section("", root, fields)]
    notes = settings.notes() if isinstance(settings, Settings) else {}
    for name, field in fields.items():
        if not (tables := tables_in(field)):
            continue
        keys = fields_of(tables[0])
        if isinstance(document[name], list):
            for place, table in enumerate(document[name]):
                sections.append(_section(f"[[{name}]]", table, {} if place else keys))
        else:
            sections.append(_section(f"[{name}]", document[name], keys, notes.get(name, {})))
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _section(
    head: str,
    document: Mapping[str, Any],
    fields: Mapping[str, FieldInfo],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return the lines of one table; a table of tasks is a separate section at the end."""
    lines = [head] if head else []
    tables = {k: v for k, v in document.items() if k == "tasks" and isinstance(v, Mapping)}
    for key, value in document.items():
        if key not in tables:
            line = f"{_key(key)} = {inline(value)}"
            about = comment(fields[key]) if key in fields else ""
            about = "; ".join(filter(None, (about, notes.get(key))))
            lines.append(f"{line:{COLUMN}} # {about}" if about else line)
    for key, table in tables.items():
        lines.append(f"[{head.strip('[]')}.{key}]")
        lines += [f"{_key(name)} = {inline(value)}" for name, value in table.items()]
    return lines


def inline(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {inline(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
