"""A handful of images: which way is taken, by folds that hold out every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.train.fewshot import choose as few
from tests.helpers.added import FEW, coloured, more
from tests.helpers.worlds import network, worlds


def handful(classes: str = "abc", each: int = 5, name: str = "few") -> Domain:
    return Domain(name, coloured(classes, each), size=8)


def test_what_a_handful_is() -> None:
    assert few.is_few(handful(each=5), "auto")
    assert not few.is_few(handful(each=5), False)
    assert not few.is_few(more(), "auto")
    assert few.is_few(more(), True)
    # test images do not count: 8 of 12 a class may be learned from
    assert not few.is_few(handful(each=12), "auto")
    assert few.is_few(handful(each=8), "auto")


def test_folds_hold_every_image_out_once_and_every_class() -> None:
    domain = handful("abcd", 7)
    cut = few.folds(domain, 0)
    everything = few.together(domain)
    held = np.concatenate([fold.val.rows for fold in cut])
    assert sorted(held) == sorted(everything)
    for fold in cut:
        assert not set(fold.train.rows) & set(fold.val.rows)
        assert sorted([*fold.train.rows, *fold.val.rows]) == sorted(everything)
        assert set(fold.train.label("classify")) == {0, 1, 2, 3}
        assert not set(fold.good("val")) & set(domain.test.rows)
    sizes = [len(fold.val) for fold in cut]
    assert max(sizes) - min(sizes) <= 1
    assert [list(f.val.rows) for f in few.folds(handful("abcd", 7), 0)] == [
        list(f.val.rows) for f in cut
    ]
    assert (
        domain.train.rows.tolist() != cut[0].train.rows.tolist()
    )  # the domain itself is as it was


def test_an_only_image_is_always_learned_from() -> None:
    source = coloured("ab", 6)
    source.listed = [i for i in source.listed if i.labels["classify"] == "a" or i.key == "0001.png"]
    domain = Domain("few", source, size=8)
    for fold in few.folds(domain, 0):
        assert 1 in fold.train.label("classify")
        assert 1 not in fold.val.label("classify")


def test_class_means_of_colours_win_and_it_is_said(run: Path) -> None:
    result = add(run, handful(), adapters="parallel", train=Train(steps=2))
    about = result.record["added"]
    assert about["chosen"].startswith("class means: ")
    assert "held out in" in about["chosen"]
    ways = {each["way"]: each["error"] for each in result.record["tried"]}
    assert "parallel" in ways
    assert ways["class means"] == min(ways.values())
    assert load(run).domains["few"].provenance["adapters"] == "none"
    assert result.record["val"]["rows"][0]["value"] == ways["class means"]
    assert result.record["val"]["rows"][0]["count"] == 12  # not those of test
    assert result.table.value("few") <= 100


def test_the_way_with_the_fewest_errors_is_taken(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "_heads_error", lambda *_: 50.0)
    monkeypatch.setattr(few, "_adapted_error", lambda *_: 25.0)
    result = add(run, handful(), adapters="lora", train=Train(steps=2))
    assert result.record["added"]["chosen"].startswith("lora: 25.0 % error")
    assert result.model.domains["few"].adapters == "lora"
    assert any("/branch." in key for key in result.pack.tensors)


def test_a_linear_head_that_wins_is_solved_from_all(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "_heads_error", lambda *given: 10.0 if given[-1] == 0.1 else 50.0)
    result = add(run, handful(), adapters="none")
    assert result.record["added"]["chosen"].startswith("linear head, L2 0.1: 10.0 %")


def test_one_image_a_class_is_enough() -> None:
    listed = [item for item in coloured("abc", 5).listed if item.split in ("val", "test")]
    source = coloured("abc", 5)
    source.listed = [*source.listed[:3], *listed[3:]]  # one a class in train, others in test
    model = network(worlds("one"))
    domain = Domain("few", source, size=8)
    assert [len(domain.splits[s]) for s in ("train", "val", "test")] == [3, 0, 3]
    result = add(model, domain, adapters="parallel", train=Train(**FEW))
    assert "nothing can be held out" in result.record["added"]["chosen"]
    assert result.record["tried"][0]["error"] is None
    assert result.record["val"]["rows"] == []
