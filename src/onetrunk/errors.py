"""The errors that onetrunk raises, and how they are shown.

An error carries what it says as fields, so that programs and tests need not read its text:

| field | meaning |
|---|---|
| `place` | the key or the file that the error is about: `train.lr` |
| `expected` | what was expected, or what is wrong, in one sentence |
| `got` | what was given instead |
| `available` | the names that would have been accepted |
| `try_` | what to do or to type |

`str(error)` puts them into one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Self

MAX_NAMES = 12  # names listed in a message; more are counted


class OnetrunkError(Exception):
    """The base of all errors that onetrunk raises; the command line shows it without a traceback.

    Args:
        expected: What was expected, or what is wrong.
        got: What was given instead. A string is quoted.
        available: Names that would have been accepted; the nearest to `got` are listed first.
        try_: What to do or to type.
        place: The key or the file that the error is about, for example `train.lr`.
    """

    def __init__(
        self,
        expected: str,
        *,
        got: object = None,
        available: Iterable[object] | None = None,
        try_: str | None = None,
        place: str = "",
    ) -> None:
        super().__init__(expected)
        self.place = place
        self.expected = expected
        self.got = got
        self.available = None if available is None else tuple(str(name) for name in available)
        self.try_ = try_
        self.errors: tuple[OnetrunkError, ...] = (self,)

    @classmethod
    def several(cls, errors: Sequence[OnetrunkError]) -> Self:
        """Return one error that shows several, a line each; `errors` holds them.

        Errors that read the same are shown once; of a single one, that error is returned.
        """
        inner = {str(one): one for each in errors for one in each.errors}
        first = next(iter(inner.values()), None)
        if len(inner) == 1 and isinstance(first, cls):
            return first
        error = cls("\n".join(one.expected for one in inner.values()))
        error.errors = tuple(inner.values())
        return error

    def within(self, place: str) -> OnetrunkError:
        """Return this error with `place` in front of the place of each of its errors."""
        errors = [
            _restore(type(each), {**_fields(each), "place": join_places(place, each.place)}, ())
            for each in self.errors
        ]
        return errors[0] if len(errors) == 1 else type(self).several(errors)

    def __str__(self) -> str:
        return "\n".join(_line(error) for error in self.errors)

    def __reduce__(self) -> tuple[Any, ...]:
        # errors are sent between processes, and subclasses may have other arguments
        fields = _fields(self) | {"got": _plain(self.got)}
        inner = self.errors if self.errors != (self,) else ()
        return _restore, (type(self), fields, inner)


class BadInput(OnetrunkError, ValueError):
    """Something that the user gave cannot be used: exit code 2."""


class Failed(OnetrunkError, RuntimeError):
    """The input was right and the work failed: exit code 1."""


class Diverged(Failed):
    """Training produced NaN or infinite values: the settings do not suit the network."""


class Missing(OnetrunkError, ImportError):
    """An optional package is not installed: exit code 2."""

    def __init__(self, package: str, extra: str, need: str) -> None:
        super().__init__(
            f"{need} needs the package {package}", try_=f"pip install 'onetrunk[{extra}]'"
        )


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that a terminal does not execute them."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def join_places(outer: str, inner: str) -> str:
    """Join two parts of a place, such as `train` and `lr`, or `domains` and `[2].size`."""
    dot = "." if outer and inner and not inner.startswith("[") and not outer.endswith(" ") else ""
    return f"{outer}{dot}{inner}"


def shorten(names: Iterable[object], limit: int = MAX_NAMES) -> str:
    """Return names separated by commas; of more than `limit`, the first and their number."""
    listed = [str(name) for name in names]
    more = f", … ({len(listed)} in all)" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _line(error: OnetrunkError) -> str:
    line, got = error.expected, error.got
    if error.place:
        line = f"{error.place}: {line}"
    if got is not None:
        line += f"; got: {_shown(got)}"
    if error.available is not None:
        near = difflib.get_close_matches(str(got), error.available, n=3, cutoff=0.5) if got else []
        names = near + [name for name in error.available if name not in near]
        line += f"; available: {shorten(names) or 'nothing'}"
    if error.try_ is not None:
        line += f"; try: {error.try_}"
    return printable(line)


def _shown(value: object) -> str:
    """Return a value as a recipe spells it, for messages."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def _fields(error: OnetrunkError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "errors"}


def _plain(value: object) -> object:
    """Return a value that can be pickled: the value itself if it is plain, else its text."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _restore(
    kind: type[OnetrunkError], fields: dict[str, Any], errors: tuple[OnetrunkError, ...]
) -> OnetrunkError:
    error = kind.__new__(kind, fields["expected"])
    error.__dict__.update(fields)
    error.errors = errors or (error,)
    return error
