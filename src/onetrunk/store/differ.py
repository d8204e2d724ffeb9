"""Which keys of two TOML texts differ: what is said of a folder that holds another recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any


def differ(there: str, here: str) -> list[str]:
    """Keys whose values are not the same; none when only comments and spaces differ."""
    if there == here:
        return []
    try:
        old, new = tomllib.loads(there), tomllib.loads(here)
    except (tomllib.TOMLDecodeError, RecursionError):
        return ["all of its text (not TOML)"]
    return list(_keys(old, new, ""))


def _keys(old: Any, new: Any, where: str) -> Iterator[str]:
    """Tables by their keys, a list of named tables (the domains) by their names."""
    names = _by_name(old), _by_name(new)
    if all(names):
        old, new = names
        if list(old) != list(new) and set(old) == set(new):
            yield f"the order of {where}"
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{where}.{key}" if where else str(key)
            if key not in new or key not in old:
                yield f"{path} (only {'here' if key in new else 'there'})"
            else:
                yield from _keys(old[key], new[key], path)
    elif old != new:
        yield f"{where} ({_short(old)} there, {_short(new)} here)"


def _by_name(value: Any) -> dict[str, Any]:
    """A list of tables that have names of their own, by name; nothing for anything else."""
    if not isinstance(value, list) or any(
        not isinstance(x, dict) or "name" not in x for x in value
    ):
        return {}
    named = {str(table["name"]): table for table in value}
    return named if len(named) == len(value) else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
