"""Checks of what users give as a model."""

from __future__ import annotations

from os import PathLike, fspath

from onetrunk.errors import BadInput
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal


def check_model(model: object) -> None:
    """Raise BadInput for what is not a model; a type error of Python would not say what to do."""
    if isinstance(model, Universal):
        return
    try_ = None
    if isinstance(model, Trunk):
        try_ = "ot.Universal(trunk, domains)"
    elif isinstance(model, str | PathLike):
        try_ = f"ot.load({fspath(model)!r})"
    raise BadInput("expected a model, an object of ot.Universal", got=_named(model), try_=try_)


def _named(thing: object) -> str:
    return thing if isinstance(thing, str) else type(thing).__name__
