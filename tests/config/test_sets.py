"""`--set`: values as in TOML, unquoted text, and comma-separated grids of values."""

from __future__ import annotations

from typing import Any

import pytest

from onetrunk.config import Train
from onetrunk.config.sets import apply_sets, grid, split_commas, value_of
from onetrunk.errors import BadInput
from tests.helpers.errors import raises


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("96", 96),
        ("true", True),
        ("[96, 128]", [96, 128]),
        ('["a", "b"]', ["a", "b"]),
        ("{ kind = 'depth' }", {"kind": "depth"}),
        ("'a b'", "a b"),
        ("timm/resnet18", "timm/resnet18"),
        ("round-robin", "round-robin"),
        ("folder:photos # mine", "folder:photos # mine"),
        ("2024-01-31", "2024-01-31"),
        ("007", "007"),
        ("", ""),
        ("1\nseed = 2", "1\nseed = 2"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1", ["1"]),
        ("1,2", ["1", "2"]),
        ("a, b ,c", ["a", "b", "c"]),
        ("[1,2]", ["[1,2]"]),
        ("[1,2],[3,[4,5]]", ["[1,2]", "[3,[4,5]]"]),
        ("{a=1,b=2},3", ["{a=1,b=2}", "3"]),
        ("'a,b',\"c,'d\"", ["'a,b'", '"c,\'d"']),
        ("a],b", ["a]", "b"]),
        ("", [""]),
    ],
)
def test_splitting_at_commas(text: str, parts: list[str]) -> None:
    assert split_commas(text) == parts


def test_grid() -> None:
    assert grid([]) == [("", [])]
    assert grid(["a=1"]) == [("", ["a=1"])]
    assert grid(["a=1,2", "b=[1,2]", "c=x,y"]) == [
        ("a=1,c=x", ["a=1", "b=[1,2]", "c=x"]),
        ("a=1,c=y", ["a=1", "b=[1,2]", "c=y"]),
        ("a=2,c=x", ["a=2", "b=[1,2]", "c=x"]),
        ("a=2,c=y", ["a=2", "b=[1,2]", "c=y"]),
    ]
    labels = [label for label, _ in grid(["t.a=timm/r,timm-r,../r,[1, 2]"])]
    assert labels == ["t.a=timm-r", "t.a=timm-r-2", "t.a=..-r", "t.a=-1-2"]
    for text in ("a=1,,2", "a=1,", "a=1,1", "a"):
        with pytest.raises(BadInput):
            grid([text])


def test_sets_do_not_change_the_given_document() -> None:
    document = {"train": {"lr": 1.0}, "domains": [{"name": "a", "size": 3}]}
    changed = apply_sets(document, ["train.lr=2.0", "domains.a.size=4", "trunk.norm=shared"])
    assert document == {"train": {"lr": 1.0}, "domains": [{"name": "a", "size": 3}]}
    assert changed == {
        "train": {"lr": 2.0},
        "domains": [{"name": "a", "size": 4}],
        "trunk": {"norm": "shared"},
    }


def test_a_pattern_sets_a_key_of_all_domains_that_match() -> None:
    document = {"domains": [{"name": name, "source": "pocket:x"} for name in ("a1", "a2", "b")]}

    def sizes(*sets: str) -> list[object]:
        return [table.get("size") for table in apply_sets(document, sets)["domains"]]

    assert sizes("domains.*.size=48") == [48, 48, 48]
    assert sizes("domains.a*.size=48") == [48, 48, None]
    assert sizes("domains.*.size=48", "domains.a2.size=[8, 9]") == [48, [8, 9], 48]
    assert [label for label, _ in grid(["domains.*.size=48,64"])] == [
        "domains.-.size=48",
        "domains.-.size=64",
    ]


@pytest.mark.parametrize(
    ("text", "place", "got", "try_"),
    [
        ("domains.*.sise=48", "domains.*.sise", "sise", "domains.*.size"),
        ("domains.*.size=big", "domains.*.size", "big", None),
    ],
)
def test_a_mistake_in_a_pattern_is_one_error(
    text: str, place: str, got: str, try_: str | None
) -> None:
    document = {"domains": [{"name": name, "source": "pocket:x"} for name in ("a", "b")]}
    with raises(BadInput, got=got, place=place, try_=try_) as info:
        apply_sets(document, [text])
    assert len(info.value.errors) == 1


def test_one_length_replaces_another() -> None:
    document = {"train": {"steps": 5, "lr": 1.0}}
    assert apply_sets(document, ["train.epochs=3"])["train"] == {"lr": 1.0, "epochs": 3}
    both = apply_sets(document, ["train.epochs=3", "train.steps=4"])["train"]
    assert both == {"lr": 1.0, "epochs": 3, "steps": 4}  # which a recipe refuses


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("lr", {"place": "", "got": "lr", "try_": "--set train.lr=0.1"}),
        ("=1", {"place": "", "got": "=1", "try_": "--set train.lr=0.1"}),
        ("train..lr=1", {"place": "", "got": "train..lr=1", "try_": "--set train.lr=0.1"}),
        ("domains.b.size=1", {"place": "--set domains.b", "got": "b", "available": ["a"]}),
        ("domains.x*.size=1", {"place": "--set domains.x*", "got": "x*", "available": ["a"]}),
        ("domains.a=1", {"place": "--set domains", "got": "domains.a", "try_": "NAME.KEY"}),
        ("domains.a.size.x=1", {"place": "--set domains.a.size", "got": "domains.a.size.x"}),
    ],
)
def test_wrong_sets(text: str, fields: dict[str, Any]) -> None:
    with raises(BadInput, **fields):
        apply_sets({"domains": [{"name": "a", "size": 3}]}, [text])


def test_a_list_of_words_may_be_one_word_and_needs_its_quotes() -> None:
    def loggers(text: str) -> tuple[str, ...]:
        return Train.of(apply_sets({"train": {}}, [text])["train"], "train").loggers

    assert loggers("train.loggers=tensorboard") == ("tensorboard",)
    with raises(
        BadInput,
        place="train.loggers",
        got="[tensorbord, a.b:c]",  # a shell has removed the quotes
        available=["tensorboard"],
        try_="""--set 'train.loggers=["tensorboard", "a.b:c"]'""",
    ):
        loggers("train.loggers=[tensorbord, a.b:c]")
