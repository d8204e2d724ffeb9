"""Few images: folds that hold out every class, and the choice of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.config import Train
from onetrunk.config.add_recipe import read_add_recipe
from onetrunk.data.domain import Domain
from onetrunk.nn.heads import Pooled
from onetrunk.nn.saving import load
from onetrunk.runs.add import add
from onetrunk.runs.change_domain import make_recipe
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.fewshot import choose_method, folds, heads
from onetrunk.train.fewshot.choose_method import FewShot, Method
from onetrunk.train.fewshot.errors_on_folds import FoldErrors, error_of, is_clearly_worse
from onetrunk.train.fewshot.schedule import few_steps, few_train
from onetrunk.train.loggers import make_logger
from onetrunk.train.new_domain import initial_slots
from onetrunk.train.new_domain.trials import HEADS_ONLY, AdapterKind, TrialRunner
from tests.helpers.added import FEW, coloured, more
from tests.helpers.worlds import network, worlds


def few_images(classes: str = "abc", each: int = 5, name: str = "few") -> Domain:
    return Domain(name, coloured(classes, each), size=8)


def test_has_few_images() -> None:
    assert folds.has_few_images(few_images(each=5), "auto")
    assert not folds.has_few_images(few_images(each=5), False)
    assert not folds.has_few_images(more(), "auto")
    assert folds.has_few_images(more(), True)
    # test images do not count: 51 of 68 images per class are trained on
    assert not folds.has_few_images(few_images(each=68), "auto")
    assert folds.has_few_images(few_images(each=65), "auto")


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


def test_folds_keep_groups_together_and_classes_even() -> None:
    chance = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 25)
    unit = np.concatenate([10 * c + chance.integers(0, 8, 25) for c in range(4)])
    fold = folds.assign_folds(label, unit, 3)
    for group in np.unique(unit):
        assert len(set(fold[unit == group])) == 1
    for c in range(4):
        counts = np.bincount(fold[label == c], minlength=folds.FOLDS)
        assert counts.min() >= 1 and counts.max() <= 10  # of groups of about three images
    assert (fold >= 0).all()


def test_a_class_in_one_group_is_never_held_out() -> None:
    label = np.array([0, 0, 0, 1, 1, 1, -1])
    unit = np.array([7, 7, 7, 1, 2, 3, 4])
    fold = folds.assign_folds(label, unit, 0)
    assert list(fold[:3]) == [-1, -1, -1] and fold[6] == -1
    assert len({*fold[3:6]}) == 3 and min(fold[3:6]) >= 0
    # a group with two classes: without it, class 1 has no image left
    fold = folds.assign_folds(np.array([0, 1, 0, 0]), np.array([5, 5, 6, 7]), 0)
    assert list(fold[:2]) == [-1, -1] and (fold[2:] >= 0).all()


def test_the_groups_of_a_source_are_used() -> None:
    source = coloured("abc", 12)
    source.listed = [replace(i, group=f"{i.labels['classify']}{n // 6}") for n, i in
                     enumerate(source.listed)]  # fmt: skip
    source.listed = [replace(i, split="train") for i in source.listed]
    domain = Domain("few", source, size=8)
    for fold in folds.make_folds(domain, 0):
        group = [domain.index.units[row] for row in fold.val.rows]
        assert not {*group} & {domain.index.units[row] for row in fold.train.rows}
        assert len(group) > len({*group})


def test_the_default_is_chosen_on_folds(run: Path) -> None:
    added = add(run, few_images(), train=Train(steps=2))
    about = added.record["added"]
    # class means and adapters make no errors, and adapters are preferred
    assert about["chosen"] == (
        "parallel: 0.0 % error on 12 images held out in 5 folds (class means 0.0 %)"
    )
    ways = {each["method"]: each["error"] for each in added.record["tried"]}
    assert "linear head, L2 1" in ways and "norm" not in ways
    assert ways["class means"] == ways["parallel"] == 0
    assert load(run).domains["few"].provenance["adapters"] == "parallel"
    assert added.record["val"]["rows"][0]["value"] == ways["parallel"]
    assert added.record["val"]["rows"][0]["count"] == 12  # not those of test
    assert added.table.value("few") <= 100
    recipe = read_add_recipe(run / "added/few")
    assert (recipe.add.adapters, recipe.train.fixed_statistics) == ("auto", True)


def test_statistics_of_the_new_images_are_computed_once_for_each_kind(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([90.0, 90.0, 90.0, 10.0] * 2)  # trunk, one, two, one with new statistics
    monkeypatch.setattr(initial_slots, "class_means_error", lambda *_: next(errors))
    recomputed = 0
    original = initial_slots.recompute_statistics

    def counted(*given: Any) -> bool:
        nonlocal recomputed
        recomputed += 1
        return original(*given)

    monkeypatch.setattr(initial_slots, "recompute_statistics", counted)
    model, domain = load(run), few_images()
    recipe = make_recipe(model, domain, 0, {"few": True}, {})
    with RunFolder.open(run.parent / "add", recipe.to_toml()) as folder:
        logger = make_logger((), folder.path)
        runner = TrialRunner(model, domain, recipe, folder, logger, torch.device("cpu"))
        norm, again = (runner.scratch_model(AdapterKind("norm")) for _ in range(2))
        assert recomputed == 1
        own, owned = norm.own("few"), again.own("few")
        assert all(torch.equal(own[key], owned[key]) for key in own)
        old = model.own("one")
        assert not any(torch.equal(own[k], old[k]) for k in own if k.endswith("running_mean"))
        runner.scratch_model(AdapterKind("parallel"))
        assert recomputed == 2  # its slots are others


def test_what_is_asked_for_is_taken(run: Path) -> None:
    added = add(run, few_images(), adapters="lora", train=Train(steps=2))
    assert added.record["added"]["chosen"].startswith("lora: ")
    assert added.model.domains["few"].adapters == "lora"
    (lora,) = (each for each in added.record["tried"] if each["method"] == "lora")
    assert lora["images"] == 12  # evaluated on all folds
    assert added.record["val"]["rows"][0]["value"] == lora["error"]


def test_many_images_are_trained_with_a_validation_split(run: Path) -> None:
    add(run, more(), train=Train(steps=2))
    recipe = read_add_recipe(run / "added/new")
    assert (recipe.add.adapters, recipe.train.fixed_statistics) == ("parallel", False)


class Answers:
    """Replaces the errors on folds: a list for each method, the same in every fold."""

    def __init__(self, errors: Mapping[str, list[int]], times: int) -> None:
        self.errors, self.times = errors, times
        self.trained: list[str] = []

    def heads(self, few: FewShot) -> list[Method]:
        return [
            Method(name, HEADS_ONLY, None, tuple(self.of(name) for _ in few.folds))
            for name in self.errors
            if name != "parallel"
        ]

    def trained_on(self, few: FewShot, kind: AdapterKind, l2: float | None, k: int) -> FoldErrors:
        self.trained.append(f"{kind.label} {k}")
        return self.of(kind.label)

    def of(self, name: str) -> FoldErrors:
        return FoldErrors({"classify": np.array(self.errors[name] * self.times, bool)})


@pytest.mark.parametrize(
    ("errors", "times", "chosen", "trained"),
    [
        # a tie: adapters
        ({"class means": [1, 0, 0, 0], "parallel": [0, 0, 1, 0]}, 1, "parallel", 5),
        # the adapters have more errors, but not clearly: by 0.9 standard errors on 35 images
        ({"class means": [1, 1, 1, 0, 0, 0, 0], "parallel": [0, 0, 0, 1, 1, 1, 1]}, 1,
         "parallel", 5),
        # clearly more, by 1.3 standard errors on 25 images, but not enough to stop
        ({"class means": [1, 0, 0, 0, 0], "parallel": [0, 1, 1, 0, 0]}, 1, "class means", 5),
        # the head is much better, after the first fold of 20 images
        ({"class means": [0, 0, 0, 0], "parallel": [1, 1, 1, 1]}, 5, "class means", 1),
        # folds of 8 images: after three of them
        ({"class means": [0, 0, 0, 0], "parallel": [1, 1, 1, 1]}, 2, "class means", 3),
        # and the same for the adapters
        ({"class means": [1, 1, 1, 1], "parallel": [0, 0, 0, 0]}, 2, "parallel", 3),
        # of heads, the one with the fewest errors, the simplest in a tie
        ({"class means": [1, 1, 1, 1], "linear": [1, 0, 0, 0], "other": [0, 1, 0, 0],
          "parallel": [1, 1, 1, 0]}, 5, "linear", 1),
        # enough images after two folds
        ({"class means": [1, 1, 1, 0], "parallel": [1, 1, 0, 1]}, 40, "parallel", 2),
    ],
)  # fmt: skip
def test_a_head_is_chosen_if_it_is_clearly_better(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    errors: Mapping[str, list[int]],
    times: int,
    chosen: str,
    trained: int,
) -> None:
    answers = Answers(errors, times)
    monkeypatch.setattr(FewShot, "heads", lambda few: answers.heads(few))
    monkeypatch.setattr(
        FewShot, "fold_errors", lambda few, kind, l2, k: answers.trained_on(few, kind, l2, k)
    )
    added = add(run, few_images(), train=Train(steps=1))
    assert added.record["added"]["chosen"].startswith(f"{chosen}: ")
    assert answers.trained == [f"parallel {k}" for k in range(trained)]


def test_norms_are_trained_where_adapters_are_above_the_budget(run: Path) -> None:
    added = add(run, few_images(), budget=0.05, train=Train(steps=1))
    tried = [each["method"] for each in added.record["tried"]]
    assert "parallel" not in tried
    assert tried[-1] == "norm" and added.record["tried"][-1]["images"] == 12


def test_paired_errors() -> None:
    def errors(*wrong: int) -> list[FoldErrors]:
        return [FoldErrors({"classify": np.array(wrong, bool)})]

    assert is_clearly_worse(errors(1, 1, 1, 0), errors(0, 0, 0, 0), 1.5)
    assert not is_clearly_worse(errors(1, 0, 0, 0), errors(0, 0, 0, 0), 1.5)  # z = 1.15
    assert not is_clearly_worse(errors(0, 0, 0, 0), errors(1, 1, 1, 1), 1.5)
    assert not is_clearly_worse(errors(1, 1), errors(1, 1), 1.5)
    one = errors(1, 0, 1)[0]
    assert FoldErrors.from_json(one.to_json()).to_json() == {"classify": "101"}
    assert error_of([one, *errors(0, 0, 0)]) == pytest.approx(100 / 3)


def test_a_chosen_linear_head_is_solved_for_all_images(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved = heads.solve_heads

    def only_one(*given: Any) -> dict[float | None, tuple[Tensor, Tensor]]:
        """Make all heads but one predict the first class."""
        found = solved(*given)
        return {
            l2: (w, b) if l2 == 0.1 else (torch.zeros_like(w), torch.eye(len(b)).double()[0])
            for l2, (w, b) in found.items()
        }

    monkeypatch.setattr(choose_method, "solve_heads", only_one)
    added = add(run, few_images(), adapters="none")
    assert added.record["added"]["chosen"].startswith("linear head, L2 0.1: ")
    head = added.model.heads_of("few").head("classify")
    assert isinstance(head, Pooled) and head.weight.abs().sum() > 0


def test_training_with_fixed_statistics_keeps_them(run: Path) -> None:
    model = load(run)
    add(model, few_images(), adapters="norm", start="one", train=Train(steps=3))
    old, new = (model.own(name) for name in ("one", "few"))
    kept = [key for key in new if key.endswith(("running_mean", "running_var"))]
    assert kept and all(torch.equal(new[key], old[key]) for key in kept)
    assert any(not torch.equal(new[key], old[key]) for key in new if key.startswith("slots/"))


def test_the_training_settings_of_few_images() -> None:
    assert [few_steps(n, 32) for n in (10, 240, 9000)] == [60, 112, 200]
    run = {
        "steps": 4000, "batch": 64, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4,
        "momentum": 0.9,
    }  # fmt: skip
    assert few_train({}, run, 40) == {
        "steps": 60, "batch": 20, "optimizer": "adamw", "lr": 3e-3, "eval_every": 60, "workers": 0,
        "fixed_statistics": True,
    }  # fmt: skip
    Train(**few_train({}, run, 40))  # no key of the other optimizer is left
    assert few_train({"momentum": 0.8}, {**run, "momentum": 0.8}, 40)["optimizer"] == "sgd"
    given = {"lr": 0.1, "epochs": 2.0, "fixed_statistics": False}
    train = few_train(given, {**run, **given}, 1000)
    assert (train["optimizer"], train["lr"], train["batch"]) == ("sgd", 0.1, 32)
    assert train["epochs"] == 2.0 and train["weight_decay"] == 5e-4
    assert not train["fixed_statistics"]


def test_one_image_per_class_is_enough() -> None:
    listed = [item for item in coloured("abc", 5).listed if item.split in ("val", "test")]
    source = coloured("abc", 5)
    source.listed = [*source.listed[:3], *listed[3:]]  # one per class in train, others in test
    model = network(worlds("one"))
    domain = Domain("few", source, size=8)
    assert [len(domain.splits[s]) for s in ("train", "val", "test")] == [3, 0, 3]
    added = add(model, domain, train=Train(**FEW))
    assert "can be held out" in added.record["added"]["chosen"]
    assert added.record["tried"][0]["error"] is None
    assert added.record["val"]["rows"] == []
