"""The keys in which two TOML documents differ."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any


def differ(old: str, new: str) -> list[str]:
    """Return the keys whose values differ, each with both values: `train.steps (was 400, is 500)`.

    Comments and white space are ignored.
    """
    if old == new:
        return []
    try:
        tables = tomllib.loads(old), tomllib.loads(new)
    except (tomllib.TOMLDecodeError, RecursionError):
        return ["all of its text (not TOML)"]
    return list(_keys(*tables, ""))


def _keys(old: Any, new: Any, path: str) -> Iterator[str]:
    """Compare tables by their keys, and a list of named tables (the domains) by their names."""
    named = _by_name(old), _by_name(new)
    if all(named):
        old, new = named
        if list(old) != list(new) and set(old) == set(new):
            yield f"the order of {path}"
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            if key in new and key in old:
                yield from _keys(old[key], new[key], inner)
            else:
                yield f"{inner} ({'added' if key in new else 'removed'})"
    elif old != new:
        yield f"{path} (was {_short(old)}, is {_short(new)})"


def _by_name(value: Any) -> dict[str, Any]:
    """Return a list of tables with distinct names as a table by name; {} for anything else."""
    if not isinstance(value, list) or any(
        not isinstance(x, dict) or "name" not in x for x in value
    ):
        return {}
    named = {str(table["name"]): table for table in value}
    return named if len(named) == len(value) else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
