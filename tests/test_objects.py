"""Names of objects in files: what is trusted, and which objects another process can import."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.heads import Pooled
from onetrunk.objects import Named, check_trusted, load_object, modules_of, trusting
from tests.helpers.errors import raises


@pytest.mark.parametrize(
    ("trust", "name"),
    [
        (["mine"], "mine:Head"),
        ("mine", "mine:Head"),
        (["mine"], "mine.heads.dense:Head"),
        (["mine.heads"], "mine.heads:Head"),
        (["mine.heads"], "mine.heads.dense:Head"),
        (["other", "mine"], "mine:Head"),
    ],
)
def test_trust_allows_a_module_and_what_lies_below_it(trust: Any, name: str) -> None:
    with trusting(trust):
        check_trusted(name, "head", "pack x")
    with raises(BadInput, "pack x", "head", got=name, try_=f"--trust {name.split(':')[0]}"):
        check_trusted(name, "head", "pack x")


@pytest.mark.parametrize(
    ("trust", "name"),
    [
        ([], "mine:Head"),
        (["min"], "mine:Head"),
        (["mine"], "mine2:Head"),
        (["mine.heads"], "mine:Head"),
        (["mine.heads"], "mine.headsman:Head"),
        (["heads"], "mine.heads:Head"),
        (["mine"], "other.mine:Head"),
    ],
)
def test_trust_matches_whole_names_only(trust: list[str], name: str) -> None:
    with trusting(trust), raises(BadInput, got=name) as info:
        check_trusted(name, "head", "pack x")
    assert info.value.available is None  # what is trusted is no answer


def test_consent_ends_with_the_block_and_adds_up_inside() -> None:
    with trusting(["a"]), trusting(["b"]):
        for name in ("a:X", "b:X"):
            check_trusted(name, "head", "pack x")
    with pytest.raises(BadInput):
        check_trusted("a:X", "head", "pack x")
    check_trusted("linear", "aligner", "pack x")  # a built-in name needs none


@pytest.mark.parametrize("trust", [["mine:Head"], ["*"], [""], ["a b"], [3]])
def test_trust_takes_names_of_modules(trust: list[Any]) -> None:
    with pytest.raises(BadInput), trusting(trust):
        pass
    with raises(BadInput, try_='trust=["module"]'), trusting(cast(Any, True)):
        pass


def test_objects_of_modules_have_names() -> None:
    path = "onetrunk.nn.heads:Pooled"
    assert Named.of(Pooled) == Named.of(path) == Named.of({"object": path}) == Named(path)
    assert Named(path).load("head") is Pooled
    assert Named(path).plain() == path
    pooled: Any = Pooled
    partial = Named.of(functools.partial(pooled, width=3))
    assert partial == Named.of({"object": path, "arguments": {"width": 3}})
    assert Named.of(partial.plain()) == partial
    made: Any = partial.load("head")
    assert (made.func, made.keywords) == (Pooled, {"width": 3})
    assert modules_of([path, "linear", "mine.a:B", "mine.a:C"]) == ("onetrunk.nn.heads", "mine.a")


class Local:
    class Inner(nn.Module):
        pass


def test_nested_classes_have_names() -> None:
    assert Named.of(Local.Inner).load("head") is Local.Inner


def test_objects_without_a_name_are_refused_with_what_to_do() -> None:
    class Head(nn.Module):
        pass

    for thing in (Head, lambda _, inside: nn.Linear(inside, 2), Pooled.__new__):
        with raises(BadInput, try_="mymodule.py"):
            Named.of(thing)
    with raises(BadInput, got="an instance of int", try_="mymodule:Thing"):
        Named.of(3)
    with raises(BadInput, got="an instance of Linear", try_="its class, Linear"):
        Named.of(nn.Linear(2, 2))
    notebook = type("Head", (nn.Module,), {"__module__": "__main__"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "Head", notebook, raising=False)
        with raises(BadInput, "Head", "notebook", try_="mymodule:Head"):
            Named.of(notebook)


@pytest.mark.parametrize(
    "thing",
    [
        "Head",
        "a:b:c",
        "os.path:",
        {"object": "a:B", "width": 3},
        {"arguments": {}},
        {"object": "a:B", "arguments": {"x": object()}},
        {"object": "a:B", "arguments": {"x": float("nan")}},
        functools.partial(print, 3),
        functools.partial(print, file=object()),
    ],
    ids=range(9),
)
def test_bad_names_and_arguments_are_refused(thing: Any) -> None:
    with pytest.raises(BadInput):
        Named.of(thing)


def test_a_module_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_recipe.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    assert load_object("beside_the_recipe:answer", "head") == 42
    with raises(BadInput, "not_there_at_all", try_="install"):
        load_object("not_there_at_all:answer", "head")
    with raises(BadInput, got="question", available=["answer"]):
        load_object("beside_the_recipe:question", "head")
    with raises(BadInput, got="real_part", available=["real"]):  # without a __dict__
        load_object("beside_the_recipe:answer.real_part", "head")
