"""JSON that every reader of JSON takes, and that comes back as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from onetrunk.errors import BadInput


def strict_json(document: object, *, indent: int | None = None) -> str:
    """Floats come back to the bit, a tuple as a list; what would be lost is refused by its key."""
    check(document, "")
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=indent)


def check(value: object, where: str) -> None:
    """Refuse what strict JSON has no word for: NaN, keys that are no text, other objects."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInput(f"a key at {where or 'the top'} must be text", got=key)
            check(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            check(inner, f"{where}[{i}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"JSON has no word for the number at {where}", got=value)
    elif not (value is None or isinstance(value, str | int)):
        raise BadInput(f"JSON has no word for what is at {where}", got=type(value).__name__)


def nulls(value: Any) -> Any:
    """The same document with null for every number that is not finite: for people's records."""
    if isinstance(value, Mapping):
        return {key: nulls(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nulls(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
