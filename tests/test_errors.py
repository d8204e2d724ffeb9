"""Errors: one line that says what was expected, what came, what exists, and what is next."""

from __future__ import annotations

import pytest

from onetrunk.errors import BadInput, Failed, Missing, OnetrunkError, printable, wrong


def test_a_message_has_its_four_parts_in_order() -> None:
    error = wrong("unknown fit", came="padd", exists=("squash", "pad", "crop"), next="fit = 'pad'")
    assert str(error) == (
        "unknown fit; came: 'padd'; exists: pad, squash, crop; next: fit = 'pad'"  # nearest first
    )


def test_parts_that_are_not_known_are_left_out() -> None:
    assert str(wrong("no images")) == "no images"
    assert str(wrong("too small", came=0)) == "too small; came: 0"
    assert str(wrong("no such thing", exists=())) == "no such thing; exists: nothing"
    assert str(wrong("empty", came="")) == "empty; came: ''"


def test_a_long_list_is_cut_and_counted_and_the_nearest_stay() -> None:
    names = [f"class-{i}" for i in range(100)] + ["zebra"]
    line = str(wrong("unknown class", came="zebr", exists=names))
    assert "exists: zebra, class-0" in line
    assert line.endswith("(101 in all)")
    assert len(line) < 250


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31mred", "a\rb", "\udcff", "tab\t", "\x00"])
def test_a_hostile_name_stays_one_harmless_line(hostile: str) -> None:
    for error in (
        wrong(hostile),
        wrong("x", came=hostile),
        wrong("x", exists=[hostile]),
        wrong("x", next=hostile),
        wrong("x", came=ValueError(hostile)),
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
    assert line == "source hf:mnist needs the package datasets; next: pip install 'onetrunk[hf]'"
