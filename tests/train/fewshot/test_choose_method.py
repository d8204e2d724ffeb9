"""Few images: folds that hold out every class, and the choice of a method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.train.fewshot import choose_method, folds
from tests.helpers.added import FEW, coloured, more
from tests.helpers.worlds import network, worlds


def few_images(classes: str = "abc", each: int = 5, name: str = "few") -> Domain:
    return Domain(name, coloured(classes, each), size=8)


def test_has_few_images() -> None:
    assert folds.has_few_images(few_images(each=5), "auto")
    assert not folds.has_few_images(few_images(each=5), False)
    assert not folds.has_few_images(more(), "auto")
    assert folds.has_few_images(more(), True)
    # test images do not count: 8 of 12 images per class are trained on
    assert not folds.has_few_images(few_images(each=12), "auto")
    assert folds.has_few_images(few_images(each=8), "auto")


def test_folds_hold_out_every_image_once_and_every_class() -> None:
    domain = few_images("abcd", 7)
    cut = folds.make_folds(domain, 0)
    everything = folds.trainable_rows(domain)
    held = np.concatenate([fold.val.rows for fold in cut])
    assert sorted(held) == sorted(everything)
    for fold in cut:
        assert not set(fold.train.rows) & set(fold.val.rows)
        assert sorted([*fold.train.rows, *fold.val.rows]) == sorted(everything)
        assert set(fold.train.label("classify")) == {0, 1, 2, 3}
        assert not set(fold.good("val")) & set(domain.test.rows)
    sizes = [len(fold.val) for fold in cut]
    assert max(sizes) - min(sizes) <= 1
    assert [list(f.val.rows) for f in folds.make_folds(few_images("abcd", 7), 0)] == [
        list(f.val.rows) for f in cut
    ]
    assert (
        domain.train.rows.tolist() != cut[0].train.rows.tolist()
    )  # the domain itself is unchanged


def test_the_only_image_of_a_class_is_always_trained_on() -> None:
    source = coloured("ab", 6)
    source.listed = [i for i in source.listed if i.labels["classify"] == "a" or i.key == "0001.png"]
    domain = Domain("few", source, size=8)
    for fold in folds.make_folds(domain, 0):
        assert 1 in fold.train.label("classify")
        assert 1 not in fold.val.label("classify")


def test_class_means_are_chosen_for_classes_of_one_colour(run: Path) -> None:
    added = add(run, few_images(), adapters="parallel", train=Train(steps=2))
    about = added.record["added"]
    assert about["chosen"].startswith("class means: ")
    assert "held out in" in about["chosen"]
    ways = {each["method"]: each["error"] for each in added.record["tried"]}
    assert "parallel" in ways
    assert ways["class means"] == min(ways.values())
    assert load(run).domains["few"].provenance["adapters"] == "none"
    assert added.record["val"]["rows"][0]["value"] == ways["class means"]
    assert added.record["val"]["rows"][0]["count"] == 12  # not those of test
    assert added.table.value("few") <= 100


def test_the_method_with_the_fewest_errors_is_taken(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_method, "_heads_error", lambda *_: 50.0)
    monkeypatch.setattr(choose_method, "_adapters_error", lambda *_: 25.0)
    added = add(run, few_images(), adapters="lora", train=Train(steps=2))
    assert added.record["added"]["chosen"].startswith("lora: 25.0 % error")
    assert added.model.domains["few"].adapters == "lora"
    assert any("/branch." in key for key in added.pack.tensors)


def test_a_chosen_linear_head_is_solved_for_all_images(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        choose_method, "_heads_error", lambda *given: 10.0 if given[-1] == 0.1 else 50.0
    )
    added = add(run, few_images(), adapters="none")
    assert added.record["added"]["chosen"].startswith("linear head, L2 0.1: 10.0 %")


def test_one_image_per_class_is_enough() -> None:
    listed = [item for item in coloured("abc", 5).listed if item.split in ("val", "test")]
    source = coloured("abc", 5)
    source.listed = [*source.listed[:3], *listed[3:]]  # one per class in train, others in test
    model = network(worlds("one"))
    domain = Domain("few", source, size=8)
    assert [len(domain.splits[s]) for s in ("train", "val", "test")] == [3, 0, 3]
    added = add(model, domain, adapters="parallel", train=Train(**FEW))
    assert "can be held out" in added.record["added"]["chosen"]
    assert added.record["tried"][0]["error"] is None
    assert added.record["val"]["rows"] == []
