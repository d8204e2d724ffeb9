"""Strict JSON, which every reader accepts and which is read back without changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from onetrunk.errors import BadInput


def strict_json(document: object, *, indent: int | None = None) -> str:
    """Return a document as JSON; raise BadInput for values that JSON cannot express.

    Floats are read back to the bit, tuples as lists.
    """
    check(document, "")
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=indent)


def check(value: object, path: str) -> None:
    """Raise BadInput for NaN, infinity, keys that are not text, and other objects."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInput(f"expected text for a key of {path or 'the document'}", got=key)
            check(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            check(inner, f"{path}[{i}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"JSON cannot express the number at {path}", got=value)
    elif not (value is None or isinstance(value, str | int)):
        raise BadInput(f"JSON cannot express the value at {path}", got=type(value).__name__)


def nulls(value: Any) -> Any:
    """Return a document with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: nulls(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nulls(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
