"""Errors: their fields, and the line that shows them."""

from __future__ import annotations

import pickle

import pytest

from onetrunk.errors import (
    BadInput,
    Failed,
    Missing,
    OnetrunkError,
    join_places,
    nearest,
    printable,
)


def test_a_message_has_its_parts_in_order() -> None:
    error = BadInput(
        "unknown fit",
        place="domains.a.fit",
        got="padd",
        available=("squash", "pad", "crop"),
        try_="fit = 'pad'",
    )
    assert str(error) == (  # names in their own order
        "domains.a.fit: unknown fit; got: 'padd'; available: squash, pad, crop; try: fit = 'pad'"
    )


def test_parts_that_are_not_given_are_left_out() -> None:
    assert str(BadInput("no images")) == "no images"
    assert str(BadInput("too small", got=0)) == "too small; got: 0"
    assert str(BadInput("no such thing", available=())) == "no such thing; available: nothing"
    assert str(BadInput("empty", got="")) == "empty; got: ''"


@pytest.mark.parametrize(
    ("name", "names", "near"),
    [
        ("nope", ["looped"], None),
        ("nope.png", ["s.png"], None),
        ("sdg", ["adam", "sgd"], "sgd"),
        ("resnet21", ["resnet20", "resnet26"], "resnet20"),
        ("Trian", ["train", "trail"], "train"),
    ],
)
def test_the_nearest_name_is_close_and_the_first_of_equals(
    name: str, names: list[str], near: str | None
) -> None:
    assert nearest(name, names) == near


def test_the_name_of_a_domain_is_left_out() -> None:
    error = BadInput.several(
        [
            BadInput("expected a source", place="domains.data.source"),
            Failed("data: no image can be read", got="a.png"),
            BadInput("data sets", place="domains.database"),
        ]
    )
    assert str(error.without_name("data")).split("\n") == [
        "source: expected a source",
        "no image can be read; got: 'a.png'",
        "domains.database: data sets",
    ]
    assert isinstance(error.without_name("data").errors[1], Failed)


def test_a_long_list_is_shortened_and_the_nearest_name_is_what_to_try() -> None:
    names = [f"class-{i}" for i in range(100)] + ["zebra"]
    line = str(BadInput("unknown class", got="zebr", available=names))
    assert "available: class-0, class-1," in line
    assert line.endswith("(101 in all); try: zebra")
    assert len(line) < 250


@pytest.mark.parametrize(
    ("got", "try_", "expected"),
    [
        ("frzen", None, "frozen"),
        ("FROZEN", None, "frozen"),
        ("frzen", "onetrunk recipes methods", "frozen, or onetrunk recipes methods"),
        ("frzen", "--methods frozen", "--methods frozen"),
        ("frozen", None, None),  # it is available: the mistake is another one
        ("something", None, None),
        ("something", "onetrunk recipes", "onetrunk recipes"),
        (7, None, None),
    ],
)
def test_a_similar_name_is_suggested(got: object, try_: str | None, expected: str | None) -> None:
    error = BadInput("unknown method", got=got, available=["frozen", "joint", "7"], try_=try_)
    assert error.try_ == expected


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31mred", "a\rb", "\udcff", "tab\t", "\x00"])
def test_control_characters_are_escaped(hostile: str) -> None:
    for error in (
        BadInput(hostile),
        BadInput("x", got=hostile),
        BadInput("x", available=[hostile]),
        BadInput("x", try_=hostile),
        BadInput("x", got=ValueError(hostile)),
    ):
        assert str(error).isprintable()
        str(error).encode()


def test_printable_text_is_not_changed() -> None:
    assert printable("photos/ø 日本 🙂.jpg") == "photos/ø 日本 🙂.jpg"
    assert printable("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"


def test_errors_are_also_of_the_builtin_classes() -> None:
    assert issubclass(BadInput, ValueError)
    assert issubclass(Failed, RuntimeError)
    assert issubclass(Missing, ImportError)
    assert all(issubclass(kind, OnetrunkError) for kind in (BadInput, Failed, Missing))
    line = str(Missing("datasets", "hf", "source hf:mnist"))
    assert line == "source hf:mnist needs the package datasets; try: pip install 'onetrunk[hf]'"


def test_several_errors_are_a_line_each_and_listed_once() -> None:
    one, two = BadInput("first", got=1), Failed("second", place="here")
    error = BadInput.several([BadInput.several([one, two]), one])
    assert str(error) == "first; got: 1\nhere: second"
    assert error.errors == (one, two)


def test_a_place_is_put_in_front_of_the_place_of_each_error() -> None:
    error = BadInput.several([BadInput("a", place="lr", got=[1]), Missing("b", "c", "d")])
    inner = error.within("train")
    assert isinstance(inner, BadInput)
    assert [(each.place, type(each)) for each in inner.errors] == [
        ("train.lr", BadInput),
        ("train", Missing),
    ]
    assert inner.errors[0].got == [1]
    assert [each.place for each in error.errors] == ["lr", ""]
    assert join_places("domains", "[2].size") == "domains[2].size"
    assert join_places("recipe.toml: ", "train.lr") == "recipe.toml: train.lr"


def test_errors_can_be_pickled() -> None:
    error = BadInput.several([BadInput("a", place="lr", got=[1]), Missing("b", "c", "d")])
    again = pickle.loads(pickle.dumps(error))
    assert [(type(each), each.place, each.try_) for each in again.errors] == [
        (type(each), each.place, each.try_) for each in error.errors
    ]
