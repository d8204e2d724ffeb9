"""The methods that `onetrunk compare` holds against each other: methods.toml, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from onetrunk.config.part import Part
from onetrunk.errors import BadInput


class Method(Part):
    """A way to have new domains beside those of a finished run."""

    what: str
    paper: str = ""
    way: Literal["add", "alone", "all"]
    init: bool = False  # alone: the network starts from the run's trunk
    taught: str = ""  # the method whose networks are the teachers
    grow: dict[str, Any] = Field(default={}, description="keys of [grow]")
    trunk: dict[str, Any] = Field(default={}, description="keys of [trunk]")
    distill: dict[str, Any] = Field(default={}, description="keys of [distill]")
    train: dict[str, Any] = Field(default={}, description="keys of [train] that it needs otherwise")


def methods_text() -> str:
    """The file that says what they are."""
    return (files("onetrunk") / "config" / "methods.toml").read_text("utf-8")


def methods() -> dict[str, Method]:
    """All of them by name, in the order of the table."""
    return {name: Method.of(table, name) for name, table in tomllib.loads(methods_text()).items()}


def chosen(names: Sequence[str]) -> dict[str, Method]:
    """These in the table's order, with those that teach them; all where none is named."""
    known = methods()
    for name in names:
        if name not in known:
            raise BadInput(
                "no such method", got=name, available=known, try_="onetrunk recipes methods"
            )
    wanted = set(names or known)
    wanted |= {known[name].taught for name in wanted} - {""}
    return {name: method for name, method in known.items() if name in wanted}
