"""The list of all keys of a recipe, from the declarations of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from onetrunk.config.add_recipe import AddSettings
from onetrunk.config.recipe import Recipe
from onetrunk.config.to_toml import spelled
from onetrunk.data.augment import Augment
from onetrunk.data.task import Task
from onetrunk.settings import choices, expected, fields_of, spelled_none, tables_in


@dataclass(frozen=True)
class Key:
    """One key of a recipe."""

    table: str  # "" at the top of the file
    key: str
    type: str
    default: Any  # as a file spells it; None: the key is left out
    required: bool
    description: str


def recipe_keys() -> list[Key]:
    """Return all keys by table, in the order in which a recipe is written."""
    top, keys = [], []
    for name, field in fields_of(Recipe).items():
        if not (tables := tables_in(field)):
            top.append(_key("", name, field))
            continue
        keys += _keys(f"[[{name}]]" if name == "domains" else f"[{name}]", tables[0])
        if name == "domains":
            keys += [key for key in _keys("[domains.tasks.NAME]", Task) if key.key != "name"]
            keys += _keys("[domains.augment]", Augment)
    return [*top, *keys, *_keys("[add]", AddSettings)]


def _keys(table: str, kind: type[Any]) -> list[Key]:
    return [_key(table, name, field) for name, field in fields_of(kind).items()]


def _key(table: str, name: str, field: FieldInfo) -> Key:
    types = " | ".join(map(str, choices(field))) or expected(field)
    default = None if field.is_required() else field.get_default()
    return Key(
        table,
        name,
        f'{types} or "auto"' if spelled_none(field) == "auto" else types,
        spelled_none(field) if default is None else spelled(default),
        field.is_required(),
        field.description or "",
    )
