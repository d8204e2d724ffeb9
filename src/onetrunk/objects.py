"""Import objects that users name as `"package.module:thing"`, and name objects in files.

To import a module is to run its code. A name that the user types is imported. A name that a file
contains (a pack, the header of a trunk, the recipe in a run's folder) is imported only with the
user's consent:

    with trusting(["mymodule"]):       # trust=["mymodule"] in Python, --trust mymodule in a shell
        check_trusted("mymodule:Head", "head", "pack rooms")

Code that reads files calls `check_trusted` for each name before `load_object`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from onetrunk.errors import BadInput, nearest, shorten

Trust = str | Iterable[str]  # modules whose code files may name
Thing = object  # `Named` has a field of this name
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_TRUSTED: ContextVar[tuple[str, ...]] = ContextVar("trusted modules", default=())


def load_object(name: str, what: str, available: Iterable[str] = ()) -> Any:
    """Import and return the object at `name`; the current folder is searched last.

    Args:
        name: `"package.module:thing"`; `thing` may contain dots.
        what: The role of the object, for messages: "norm", "train.loggers".
        available: The built-in names that are accepted as well.
    """
    built_in = tuple(available)
    module, _, path = name.partition(":")
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{what}: expected a built-in name or package.module:thing",
            got=name,
            available=built_in or None,
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(
            os.getcwd()
        )  # the `onetrunk` command does not have it; data workers need it
    try:
        thing: Any = importlib.import_module(module)
    except ImportError as error:
        near = nearest(module, built_in)  # a mistyped built-in name before a colon
        raise BadInput(
            f"{what} {name}: cannot import {module}",
            got=str(error),
            available=built_in or None,
            try_=f"{f'{near}, or ' if near else ''}install the package of {module}, or start where "
            "its file lies",
        ) from None
    except Exception as error:  # the module's code may raise anything
        raise BadInput(
            f"{what} {name}: importing {module} failed", got=f"{type(error).__name__}: {error}"
        ) from error
    for part in path.split("."):
        if not hasattr(thing, part):
            public = [key for key in dir(thing) if not key.startswith("_")]
            raise BadInput(f"{what} {name}: {module} has no {path}", got=part, available=public)
        thing = getattr(thing, part)
    return thing


# -- consent


def trusted_modules(modules: Trust) -> tuple[str, ...]:
    """Return names of modules as a tuple; one may be given without a list."""
    if not isinstance(modules, Iterable):
        raise BadInput(
            "trust: expected the names of modules", got=str(modules), try_='trust=["module"]'
        )
    return (modules,) if isinstance(modules, str) else tuple(modules)


@contextmanager
def trusting(modules: Trust) -> Iterator[None]:
    """Inside the block, allow files to name objects of these modules.

    Args:
        modules: Names of modules; each also allows what lies below it: `a.b` allows `a.b.c`.
    """
    names = trusted_modules(modules)
    for name in names:
        if not isinstance(name, str) or not MODULE.fullmatch(name):
            raise BadInput(
                "trust: expected the names of modules",
                got=name if isinstance(name, str) else type(name).__name__,
                try_=f"trust=[{module_of(name)!r}]" if isinstance(name, str) else 'trust=["a.b"]',
            )
    token = _TRUSTED.set((*_TRUSTED.get(), *names))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def check_trusted(name: str, what: str, where: str) -> None:
    """Raise BadInput for an object of a user's module that is not trusted.

    Args:
        name: A built-in name, or `"package.module:thing"`.
        what: The role of the object.
        where: The file that names it.
    """
    if ":" not in name:
        return
    module = module_of(name)
    trusted = _TRUSTED.get()
    if any(module == each or module.startswith(f"{each}.") for each in trusted):
        return
    allowed = f" (trusted: {shorten(trusted)})" if trusted else ""
    raise BadInput(
        f"{where}: its {what} is the code of another package, which is not run without "
        f"consent{allowed}",
        got=name,
        try_=f"if you trust it: --trust {module}, or trust=[{module!r}] in Python",
    )


def module_of(name: str) -> str:
    """Return the module of `"package.module:thing"`."""
    return name.partition(":")[0]


def modules_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of those names that are not built in."""
    return tuple(dict.fromkeys(module_of(name) for name in names if NAME.fullmatch(name)))


# -- objects in files


@dataclass(frozen=True)
class Named:
    """An object in a file: its import path, and the keyword arguments that it is called with."""

    object: str
    arguments: Mapping[str, Any] = field(default_factory=dict)  # JSON

    def __post_init__(self) -> None:
        if not isinstance(self.object, str) or not NAME.fullmatch(self.object):
            raise BadInput("expected package.module:thing", got=self.object)
        if not isinstance(self.arguments, Mapping) or not _is_json(self.arguments):
            raise BadInput(
                f"{self.object}: expected arguments of text, numbers, lists and tables",
                got=shorten(self.arguments) if self.arguments else str(self.arguments),
            )

    @classmethod
    def of(cls, thing: Thing) -> Named:
        """Return the name of an object as users give it.

        BadInput is raised for an object that another process could not import.

        Args:
            thing: `"package.module:thing"`; a table `{object = …, arguments = …}`; a class or
                function of a module; or a `functools.partial` of one, with keyword arguments.
        """
        if isinstance(thing, Named):
            return thing
        if isinstance(thing, str):
            return cls(thing)
        if isinstance(thing, Mapping):
            unknown = [key for key in thing if key not in ("object", "arguments")]
            if unknown or "object" not in thing:
                raise BadInput(
                    "expected a table with object and arguments",
                    got=shorten(thing),
                    available=("object", "arguments"),
                )
            return cls(thing["object"], thing.get("arguments", {}))
        if isinstance(thing, functools.partial):
            if thing.args or not _is_json(thing.keywords):
                raise BadInput(
                    "a partial in a file has keyword arguments of text, numbers, lists and tables",
                    got=str(thing)[:120],
                )
            return cls(cls.of(thing.func).object, dict(thing.keywords))
        module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        found: Any = sys.modules.get(str(module))
        for part in str(path).split("."):
            found = getattr(found, part, None)
        if found is not thing or module == "__main__":
            if path is None:  # neither a class nor a function
                kind = type(thing).__name__
                raise BadInput(
                    "expected a class or function that another process can import",
                    got=f"an instance of {kind}",
                    try_=f"its class, {kind}" if callable(thing) else '"mymodule:Thing"',
                )
            raise BadInput(
                "expected a class or function that another process can import",
                got=f"{path} of this notebook or script" if module == "__main__" else str(path),
                try_="write it at the top level of a file such as mymodule.py, and name it "
                f'"mymodule:{str(path).rpartition(".")[2].strip("<>")}"',
            )
        return cls(f"{module}:{path}")

    def load(self, what: str) -> Callable[..., Any]:
        """Import the object and return it with its arguments."""
        thing: Callable[..., Any] = load_object(self.object, what)
        return functools.partial(thing, **self.arguments) if self.arguments else thing

    def plain(self) -> str | dict[str, Any]:
        """Return the object as a recipe writes it."""
        if not self.arguments:
            return self.object
        return {"object": self.object, "arguments": dict(self.arguments)}


def _is_json(arguments: Mapping[str, Any]) -> bool:
    try:
        text = json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return all(isinstance(key, str) for key in arguments) and json.loads(text) == _lists(arguments)


def _lists(value: Any) -> Any:
    """Return the value with lists in place of tuples, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, list | tuple) else value
