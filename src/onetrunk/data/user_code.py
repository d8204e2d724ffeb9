"""The code of a user's source as text, for the key of the cache.

The stamps of two sources may be equal although their classes read different images, for example
after `image()` was edited in a notebook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType
from typing import Any

from onetrunk.data.sources import Source

PACKAGE = "onetrunk"
PLAIN = (str, bytes, int, float, complex, type(None), type(...))  # values with a fixed repr


def is_users(source: Source) -> bool:
    """Return whether the class of a source is not one of onetrunk's own."""
    return type(source).__module__.partition(".")[0] != PACKAGE


def code_of(source: Source) -> str:
    """Return the names of the user's classes that read the images, with a hash of their code.

    It is "" for a built-in source. A source that wraps others, which are in its attribute
    `sources`, has the code of these.
    """
    if is_users(source):
        cls = type(source)
        return f"{cls.__module__}:{cls.__qualname__} {_digest(cls)}"
    return "+".join(filter(None, map(code_of, getattr(source, "sources", ()))))


def _digest(cls: type) -> str:
    digest = hashlib.sha256()
    for each in cls.__mro__:
        if each is not object and each.__module__.partition(".")[0] != PACKAGE:
            for text in _texts(each):
                digest.update(f"{text}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _texts(cls: type) -> Iterator[str]:
    """Yield the functions and the plain values of a class."""
    for name, value in sorted(vars(cls).items()):
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        function = getattr(function, "__wrapped__", function)  # of a decorated function
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield name
            yield from _code(code)
        elif not name.startswith("__") and (text := _value(value)):
            yield f"{name}={text}"


def _code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _code(value)
        else:
            yield _value(value)


def _value(value: Any) -> str:
    """Return a text that is the same in every process; "" for a value that has none."""
    if isinstance(value, tuple | frozenset):
        inner = [_value(each) for each in value]
        return f"({','.join(inner if isinstance(value, tuple) else sorted(inner))})"
    return repr(value) if isinstance(value, PLAIN) else ""
