"""Objects that users name as `"package.module:thing"`, in place of the name of a method."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from onetrunk.errors import BadInput


def load_object(name: str, what: str, available: Iterable[str] = ()) -> Any:
    """Import and return the object at `name`.

    Args:
        name: `"package.module:thing"`; `thing` may contain dots.
        what: What the object is used as, for messages: "norm", "train.loggers".
        available: The built-in names that are accepted instead.
    """
    built_in = tuple(available)
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise BadInput(
            f"{what}: expected a built-in name or package.module:thing",
            got=name,
            available=built_in or None,
        )
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            f"{what} {name}: cannot import {module}", got=str(error), available=built_in or None
        ) from None
    except Exception as error:  # the module's code may raise anything
        raise BadInput(
            f"{what} {name}: importing {module} failed", got=f"{type(error).__name__}: {error}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            public = [key for key in vars(found) if not key.startswith("_")]
            raise BadInput(f"{what} {name}: {module} has no {path}", got=part, available=public)
        found = getattr(found, part)
    return found
