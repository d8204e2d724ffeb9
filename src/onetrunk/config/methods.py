"""The methods that `onetrunk compare` compares: methods.toml, read and validated."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from onetrunk.errors import BadInput
from onetrunk.settings import Settings


class Method(Settings):
    """A method to learn new domains, given a finished run with other domains."""

    description: str = Field(description="What the method trains")
    paper: str = Field(default="", description="The paper that it is from")
    kind: Literal["add", "separate", "joint"] = Field(
        description="add: a pack per new domain; separate: a network per new domain; joint: one "
        "network for the run's domains and the new ones"
    )
    init: bool = Field(
        default=False, description="Separate networks start from the trunk of the run"
    )
    teachers: str = Field(default="", description="The method whose networks are the teachers")
    add: dict[str, Any] = Field(default={}, description="Keys of [add]")
    trunk: dict[str, Any] = Field(default={}, description="Keys of [trunk]")
    distill: dict[str, Any] = Field(default={}, description="Keys of [distill]")
    train: dict[str, Any] = Field(
        default={}, description="Keys of [train] that differ from those of the other methods"
    )


def methods_text() -> str:
    """Return the text of methods.toml."""
    return (files("onetrunk") / "config" / "methods.toml").read_text("utf-8")


def methods() -> dict[str, Method]:
    """Return all methods by name, in the order of the file."""
    return {name: Method.of(table, name) for name, table in tomllib.loads(methods_text()).items()}


def choose_methods(names: Sequence[str]) -> dict[str, Method]:
    """Return these methods and those that train their teachers, in order; of no names, all."""
    known = methods()
    for name in names:
        if name not in known:
            raise BadInput(
                "unknown method", got=name, available=known, try_="onetrunk recipes methods"
            )
    chosen = set(names or known)
    chosen |= {known[name].teachers for name in chosen} - {""}
    return {name: method for name, method in known.items() if name in chosen}
