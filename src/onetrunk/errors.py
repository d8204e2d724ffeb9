"""The errors that onetrunk raises.

An error has its information in fields, so that programs and tests need not parse its text:

| field | meaning |
|---|---|
| `place` | the key or the file that the error is about: `train.lr` |
| `expected` | what was expected, or what is wrong, in one sentence |
| `got` | the value that was given |
| `available` | the names that are accepted |
| `try_` | what to do or to type |

`str(error)` is one line with all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Self

MAX_NAMES = 12  # names listed in a message; of more, the number is given


class OnetrunkError(Exception):
    """The base of all errors that onetrunk raises; the command line prints them without traceback.

    Args:
        expected: What was expected, or what is wrong.
        got: The value that was given. A string is quoted.
        available: The names that are accepted, in an order that makes sense to a reader.
        try_: What to do or to type. A name in `available` that is similar to `got` is put first.
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
        self.try_ = _with_nearest(try_, got, self.available or ())
        self.errors: tuple[OnetrunkError, ...] = (self,)

    @classmethod
    def several(cls, errors: Sequence[OnetrunkError]) -> Self:
        """Return one error for several, with a line for each; they are in `errors`.

        Errors with equal text are listed once. A single error is returned itself.
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

    def without_name(self, name: str) -> OnetrunkError:
        """Return this error without the name of a domain, where its text or place starts so."""
        errors = []
        for each in self.errors:
            fields = _fields(each)
            for prefix in (f"{name}: ", f"domain {name}: "):
                fields["expected"] = fields["expected"].removeprefix(prefix)
            place = f"domains.{name}"
            if each.place == place or each.place.startswith(f"{place}."):
                fields["place"] = each.place.removeprefix(place).removeprefix(".")
            errors.append(_restore(type(each), fields, ()))
        return errors[0] if len(errors) == 1 else type(self).several(errors)

    def __str__(self) -> str:
        return "\n".join(_line(error) for error in self.errors)

    def __reduce__(self) -> tuple[Any, ...]:
        # errors are sent between processes, and subclasses may have other arguments
        fields = _fields(self) | {"got": _plain(self.got)}
        inner = self.errors if self.errors != (self,) else ()
        return _restore, (type(self), fields, inner)


class BadInput(OnetrunkError, ValueError):
    """The input is invalid: exit code 2."""


class Failed(OnetrunkError, RuntimeError):
    """The input is valid, but the work failed: exit code 1."""


class Diverged(Failed):
    """Training produced NaN or infinite values."""


class Missing(OnetrunkError, ImportError):
    """An optional package is not installed: exit code 2."""

    def __init__(self, package: str, extra: str, need: str) -> None:
        super().__init__(
            f"{need} needs the package {package}", try_=f"pip install 'onetrunk[{extra}]'"
        )


def printable(text: str) -> str:
    """Return the text with control characters escaped, for safe output on a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def join_places(outer: str, inner: str) -> str:
    """Join two parts of a place, such as `train` and `lr`, or `domains` and `[2].size`."""
    dot = "." if outer and inner and not inner.startswith("[") and not outer.endswith(" ") else ""
    return f"{outer}{dot}{inner}"


def shorten(names: Iterable[object], limit: int = MAX_NAMES) -> str:
    """Return names separated by commas; of more than `limit`, the first ones and the total."""
    listed = [str(name) for name in names]
    more = f", … ({len(listed)} in all)" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that the user probably meant: the most similar one, if any is similar.

    Of equally similar names, the first is returned.
    """
    plain = {each.casefold(): each for each in reversed(list(names))}
    key, cutoff = name.casefold(), 0.6 if len(name) < 4 else 0.7
    found = difflib.get_close_matches(key, plain, n=5, cutoff=cutoff)
    if not found:
        return None
    order = list(reversed(plain))
    ratios = {each: difflib.SequenceMatcher(None, each, key).ratio() for each in found}
    return plain[min(found, key=lambda each: (-ratios[each], order.index(each)))]


def _with_nearest(try_: str | None, got: object, available: Sequence[str]) -> str | None:
    """Return `try_` with the available name that is most similar to what was given."""
    if not isinstance(got, str) or got in available:
        return try_
    near = nearest(got, available)
    if near is None or (try_ is not None and near in try_):
        return try_
    return near if try_ is None else f"{near}, or {try_}"


def _line(error: OnetrunkError) -> str:
    line, got = error.expected, error.got
    if error.place:
        line = f"{error.place}: {line}"
    if got is not None:
        line += f"; got: {_shown(got)}"
    if error.available is not None:
        line += f"; available: {shorten(error.available) or 'nothing'}"
    if error.try_ is not None:
        line += f"; try: {error.try_}"
    return printable(line)


def _shown(value: object) -> str:
    """Format a value for messages, as it is written in a recipe."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def _fields(error: OnetrunkError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "errors"}


def _plain(value: object) -> object:
    """Return the value if it is plain, else its text, so that it can be sent to a process."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _restore(
    kind: type[OnetrunkError], fields: dict[str, Any], errors: tuple[OnetrunkError, ...]
) -> OnetrunkError:
    error = kind.__new__(kind, fields["expected"])
    error.__dict__.update(fields)
    error.errors = errors or (error,)
    return error
