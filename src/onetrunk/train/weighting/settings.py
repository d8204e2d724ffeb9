"""A method's settings: a frozen dataclass whose fields say what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from onetrunk.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Where a number may lie; `open`: not on the lower bound itself."""

    whole: bool
    least: float
    most: float
    open: bool

    def hold(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        inside = self.least <= value <= self.most and abs(value) < float("inf")
        return inside and not (self.open and value == self.least)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.least:g}" if self.open else f"from {self.least:g}"
        high = f" to {self.most:g}" if self.most < float("inf") else ""
        return f"{kind} {low}{high}"


def real(
    default: float, least: float = 0.0, most: float = float("inf"), *, open: bool = False
) -> Any:
    """A field for a number."""
    return field(default=default, metadata={"bounds": Bounds(False, least, most, open)})


def whole(default: int, least: int = 0) -> Any:
    """A field for a whole number."""
    return field(default=default, metadata={"bounds": Bounds(True, least, float("inf"), False)})


@dataclass(frozen=True)
class Nothing:
    """The settings of a method that has none."""


def take(kind: type[T], given: Mapping[str, object], method: str) -> T:
    """What is given, over the defaults; refused where it cannot be."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"weighting {method} has no such setting", got=name, available=known)
        bounds: Bounds = known[name].metadata["bounds"]
        if not bounds.hold(value):
            raise BadInput(f"weighting {method}: {name} is {bounds}", got=value)
    return kind(**given)
