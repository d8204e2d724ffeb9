"""Expect an error of onetrunk, and check its fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from onetrunk.errors import OnetrunkError

UNSET = object()


@contextmanager
def raises(
    kind: type[OnetrunkError],
    *facts: object,
    got: object = UNSET,
    available: Iterable[object] = (),
    try_: str | None = None,
    place: str | None = None,
) -> Iterator[pytest.ExceptionInfo[OnetrunkError]]:
    """`pytest.raises` for errors of onetrunk.

    Args:
        kind: The class of the error.
        facts: Names, paths and numbers that its message must contain. Not prose.
        got: The value of the field `got` of one of its errors.
        available: Names that the field `available` of one of its errors must contain.
        try_: A part of the field `try_` of one of its errors.
        place: The field `place` of one of its errors.
    """
    with pytest.raises(kind) as info:
        yield info
    error = info.value
    text = str(error)
    assert [fact for fact in facts if str(fact) not in text] == [], text
    errors = error.errors
    if got is not UNSET:
        assert any(each.got == got for each in errors), [each.got for each in errors]
    names = {str(name) for name in available}
    if names:
        assert any(names <= set(each.available or ()) for each in errors), text
    if place is not None:
        assert any(each.place == place for each in errors), [each.place for each in errors]
    if try_ is not None:
        assert any(try_ in (each.try_ or "") for each in errors), text
