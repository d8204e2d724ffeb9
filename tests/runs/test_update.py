"""Updating a domain: rows by name, only its pack changes, and undo restores it to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.runs.open import Run
from onetrunk.runs.update import relabel, undo, update
from tests.helpers.added import FEW, files, more, predictions, same
from tests.helpers.errors import raises
from tests.helpers.worlds import noise


def head(run: Path, name: str) -> tuple[tuple[str, ...], Tensor]:
    model = load(run)
    module = model.heads_of(name).head("classify")
    return model.domains[name].task("classify").classes, module.get_parameter("weight").detach()


def test_update_and_undo_to_the_bit(run: Path) -> None:
    add(run, more(classes="abc"), train=Train(**FEW))
    before, kept = predictions(run), files(run)
    new = Domain("new", noise(80, "abcd", 300), size=8)
    result = update(run, new, train=Train(**FEW))
    assert same({k: before[k] for k in ("one", "two")}, predictions(run, "one", "two"))
    assert set(result.unchanged.fingerprints) == {"one", "two"}
    assert load(run).domains["new"].task("classify").classes == ("a", "b", "c", "d")
    history = load(run).domains["new"].provenance["history"]
    assert [event["event"] for event in history] == ["added", "updated"]
    assert Run(run).versions("new") == [1]
    assert Run(run).scores["splits"]["new"]["train"] == len(new.train)
    second = (run / "model/packs/new.pack").read_bytes()
    undo(run, "new")
    now = files(run)
    undone = {key for key in now if key.startswith("history/")}
    assert {k: v for k, v in now.items() if k not in undone} == {
        k: v for k, v in kept.items() if not k.startswith("adding/")
    }
    assert same(before, predictions(run))
    assert now["history/new/undone-2/new.pack"] == second
    with raises(BadInput, "new", try_="onetrunk info"):
        undo(run, "new")


def test_a_domain_of_the_training_is_updated(run: Path) -> None:
    before, scores, outcomes = predictions(run), Run(run).scores, Run(run).outcomes
    trunk = (run / "model/trunk.safetensors").read_bytes()
    pack = (run / "model/packs/one.pack").read_bytes()
    update(run, Domain("one", noise(40, "ab", 77), size=8), train=Train(**FEW))
    assert not same(before, predictions(run))
    assert same({"two": before["two"]}, predictions(run, "two"))
    update(run, Domain("one", noise(40, "abz", 77), size=8), train=Train(**FEW))
    assert Run(run).versions("one") == [1, 2]
    undo(run, "one")
    assert load(run).domains["one"].task("classify").classes == ("a", "b")
    undo(run, "one")
    assert same(before, predictions(run))
    assert (run / "model/packs/one.pack").read_bytes() == pack
    assert (run / "model/trunk.safetensors").read_bytes() == trunk
    assert Run(run).scores == scores  # the scores of the training again
    again = Run(run).outcomes
    assert (
        again is not None and outcomes is not None and again.image_digests == outcomes.image_digests
    )
    assert not (run / "added/one").exists()
    history = [p.name for p in (run / "history/one").iterdir()]
    assert sorted(history) == ["undone-2", "undone-3"]


def test_renamed_classes_are_sorted_like_those_of_the_source(run: Path) -> None:
    before, (_, weight) = predictions(run), head(run, "two")
    relabel(run, "two", rename={"a": "zebra"})
    classes, rows = head(run, "two")
    assert classes == ("b", "c", "zebra")
    assert rows.equal(weight[[1, 2, 0]])
    expected = before["two"]["classify"][:, [1, 2, 0]]
    torch.testing.assert_close(predictions(run, "two")["two"]["classify"], expected)


def test_renaming_and_dropping_classes_does_not_train(run: Path) -> None:
    before, (_, weight) = predictions(run), head(run, "one")
    relabel(run, "one", rename={"b": "zebra"})
    classes, rows = head(run, "one")
    assert classes == ("a", "zebra")
    assert rows.equal(weight)
    assert same(before, predictions(run))
    relabel(run, "two", drop=["b"])
    assert head(run, "two")[0] == ("a", "c")
    assert predictions(run, "two")["two"]["classify"].equal(before["two"]["classify"][:, [0, 2]])
    assert same({"one": before["one"]}, predictions(run, "one"))
    undo(run, "two")
    undo(run, "one")
    assert same(before, predictions(run))
    assert head(run, "one")[0] == ("a", "b")


def test_an_updated_domain_keeps_its_kind_of_adapters(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(run, more("bare"), adapters="none")
    slots = {k: v for k, v in load(run).pack("bare").tensors.items() if k.startswith("slots/")}
    assert "bare: the head only, as requested\n" in capsys.readouterr().err
    update(run, Domain("bare", noise(60, "abcd", 300), size=8))
    assert "bare: the head only, as before\n" in capsys.readouterr().err
    after = load(run).pack("bare").tensors
    assert all(after[key].equal(value) for key, value in slots.items())  # only the head was trained
    add(run, more("low", first=800), adapters="lora", rank=3, train=Train(**FEW))
    update(run, Domain("low", noise(60, "abcd", 300), size=8), train=Train(**FEW))
    card = load(run).domains["low"]
    assert (card.adapters, card.rank) == ("lora", 3)


@pytest.mark.parametrize(
    ("act", "fields"),
    [
        (lambda run: update(run, more("nowhere")), {"got": "nowhere", "try_": "onetrunk add"}),
        (lambda run: undo(run, "one"), {"try_": "onetrunk info"}),
        (lambda run: undo(run, "nowhere"), {"got": "nowhere", "available": ["one", "two"]}),
        (lambda run: relabel(run, "one", rename={"q": "z"}), {"got": "q", "available": ["a", "b"]}),
        (lambda run: relabel(run, "one", rename={"a": "b"}), {"got": "a=b", "try_": "update"}),
        (lambda run: relabel(run, "one", drop=["q"]), {"got": "q", "available": ["a", "b"]}),
        (lambda run: relabel(run, "one", drop=["a", "b"]), {"got": "a, b"}),
    ],
)
def test_a_refused_update_changes_nothing(run: Path, act: Any, fields: dict[str, Any]) -> None:
    before = files(run)
    with raises(BadInput, **fields) as refused:
        act(run)
    assert "\n" not in str(refused.value)
    assert files(run) == before


def test_a_name_that_is_taken_is_not_suggested(run: Path) -> None:
    with raises(BadInput, got="a=b") as refused:
        relabel(run, "one", rename={"a": "b"})
    assert refused.value.available is None
