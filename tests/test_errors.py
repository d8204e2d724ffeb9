"""Errors: one line that says what was expected, what came, what exists, and what is next."""

from __future__ import annotations

import pytest

from onetrunk.errors import BadInput, Failed, Missing, OnetrunkError, printable


def test_a_message_has_its_four_parts_in_order() -> None:
    error = BadInput(
        "unknown fit", got="padd", available=("squash", "pad", "crop"), try_="fit = 'pad'"
    )
    assert str(error) == (
        "unknown fit; got: 'padd'; available: pad, squash, crop; try: fit = 'pad'"  # nearest first
    )


def test_parts_that_are_not_known_are_left_out() -> None:
    assert str(BadInput("no images")) == "no images"
    assert str(BadInput("too small", got=0)) == "too small; got: 0"
    assert str(BadInput("no such thing", available=())) == "no such thing; available: nothing"
    assert str(BadInput("empty", got="")) == "empty; got: ''"


def test_a_long_list_is_cut_and_counted_and_the_nearest_stay() -> None:
    names = [f"class-{i}" for i in range(100)] + ["zebra"]
    line = str(BadInput("unknown class", got="zebr", available=names))
    assert "available: zebra, class-0" in line
    assert line.endswith("(101 in all)")
    assert len(line) < 250


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31mred", "a\rb", "\udcff", "tab\t", "\x00"])
def test_a_hostile_name_stays_one_harmless_line(hostile: str) -> None:
    for error in (
        BadInput(hostile),
        BadInput("x", got=hostile),
        BadInput("x", available=[hostile]),
        BadInput("x", try_=hostile),
        BadInput("x", got=ValueError(hostile)),
    ):
        assert str(error).isprintable()
        str(error).encode()


def test_printable_leaves_what_can_be_shown() -> None:
    assert printable("photos/ø 日本 🙂.jpg") == "photos/ø 日本 🙂.jpg"
    assert printable("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"


def test_kinds_of_errors_are_pythons_own_kinds_too() -> None:
    assert issubclass(BadInput, ValueError)
    assert issubclass(Failed, RuntimeError)
    assert issubclass(Missing, ImportError)
    assert all(issubclass(kind, OnetrunkError) for kind in (BadInput, Failed, Missing))
    line = str(Missing("datasets", "hf", "source hf:mnist"))
    assert line == "source hf:mnist needs the package datasets; try: pip install 'onetrunk[hf]'"
