"""What a caller says of distillation, as the [distill] of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config.distill import FEATURES, Distill
from onetrunk.errors import BadInput


def in_words(teachers: object, distill: Sequence[str] | Mapping[str, Any]) -> Distill:
    """The settings; a teacher that is an object is named, not repeated."""
    said = dict(distill) if isinstance(distill, Mapping) else _by_words(distill)
    if not teachers:
        if said:
            raise BadInput(
                "distill without teachers",
                got=", ".join(map(str, distill)),
                try_='teachers="runs/specialists"',
            )
        return Distill()
    return Distill.of({"teachers": _named(teachers), **said}, "distill")


def _by_words(words: Sequence[str]) -> dict[str, Any]:
    if isinstance(words, str):
        words = [words]
    features = [word for word in words if word != "logits"]
    if len(features) > 1:
        raise BadInput("one feature loss", got=", ".join(features), available=[*FEATURES, "logits"])
    if not words:
        return {}
    return {"features": features[0] if features else "none", "logits": "logits" in words}


def _named(teachers: object) -> Any:
    if isinstance(teachers, str | Path):
        return str(teachers)
    if isinstance(teachers, Mapping):
        return {str(key): _named(value) for key, value in teachers.items()}
    if isinstance(teachers, list | tuple):
        return [_named(one) for one in teachers]
    return f"python:{getattr(teachers, 'name', type(teachers).__name__)}"
