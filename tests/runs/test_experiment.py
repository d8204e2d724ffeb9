"""Seeds and grids: a folder per run, the choice on validation, and finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import headline
from onetrunk.eval.table import Row, Table
from onetrunk.runs import experiment
from onetrunk.runs.experiment import folder_of, sweep
from onetrunk.runs.open import Run
from tests.helpers.errors import raises
from tests.helpers.worlds import recipe


def table(split: str, values: Mapping[str, float]) -> dict[str, Any]:
    rows = []
    for name, value in values.items():
        domain, kind = name.split("/")
        metric = headline(kind)
        rows.append(
            Row(domain, kind, metric.name, value, 9, kind, metric.unit, metric.better, True)
        )
    return Table(tuple(rows), split).to_json()


class FakeTraining:
    """Replace training by given scores for each learning rate and seed; record the calls."""

    def __init__(self, scores: Mapping[tuple[float, int], Mapping[str, Any]]) -> None:
        self.scores = scores
        self.calls: list[tuple[float, int, Path, bool]] = []

    def __call__(self, one: Recipe, *, resume: bool, device: str | None) -> Run:
        self.calls.append((one.train.lr, one.seed, one.out_folder, resume))
        folder = one.out_folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(one.moved_to(folder).to_toml())
        scores = self.scores[one.train.lr, one.seed]
        (folder / "scores.json").write_text(json.dumps(scores))
        return Run(folder)


def scored(
    val: Mapping[str, float], test: Mapping[str, float], best: float = 1.0
) -> dict[str, Any]:
    found = {"val": table("val", val), "test": table("test", test)}
    return {**found, "best": {"": {"step": 1, "score": best}}}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeScores:
    def replace(scores: Mapping[tuple[float, int], Mapping[str, Any]]) -> FakeTraining:
        training = FakeTraining(scores)
        monkeypatch.setattr(experiment, "train_recipe", training)
        return training

    return replace


FakeScores = Callable[[Mapping[tuple[float, int], Mapping[str, Any]]], FakeTraining]


def errors(value: float) -> dict[str, float]:
    return {"ants/classify": value, "bees/classify": value + 10}


def test_the_lowest_mean_validation_error_is_chosen(fake: FakeScores, tmp_path: Path) -> None:
    training = fake(
        {
            (0.1, 0): scored(errors(30), errors(1)),
            (0.1, 1): scored(errors(32), errors(3)),
            (0.03, 0): scored(errors(20), errors(90)),
            (0.03, 1): scored(errors(40), errors(94)),
        }
    )
    one = recipe(tmp_path)
    found = sweep(one, one.grid(["train.lr=0.1,0.03"]), [0, 1])
    assert found["chosen"] == "train.lr=0.03"
    first, second = found["variations"]
    assert (first["val"], first["val_by_seed"]) == (36, [35, 37])
    assert (second["val"], second["val_by_seed"]) == (35, [25, 45])
    assert first["test"]["ants/classify/error"] == {
        "mean": 2, "std": pytest.approx(2**0.5), "by_seed": [1, 3]
    }  # fmt: skip
    assert first["test"]["bees/classify/error"]["by_seed"] == [11, 13]
    assert second["runs"] == ["train.lr=0.03/seed-0", "train.lr=0.03/seed-1"]
    folders = [folder for _, _, folder, _ in training.calls]
    assert folders == [tmp_path / "runs" / run for v in found["variations"] for run in v["runs"]]
    assert json.loads((tmp_path / "runs" / "sweep.json").read_text()) == found


def test_runs_with_mixed_kinds_are_compared_in_the_same_units(
    fake: FakeScores, tmp_path: Path
) -> None:
    """The score of a run is relative to its first evaluation, so it cannot be compared."""
    low = {"ants/classify": 20.0, "rooms/depth": 1.0}
    high = {"ants/classify": 60.0, "rooms/depth": 1.0}
    fake({(0.1, 0): scored(high, high, best=0.3), (0.03, 0): scored(low, low, best=0.9)})
    one = recipe(tmp_path)
    found = sweep(one, one.grid(["train.lr=0.1,0.03"]), [0])
    assert found["chosen"] == "train.lr=0.03"
    worse, better = (each["val"] for each in found["variations"])
    assert (worse, better) == (pytest.approx((1.5 + 1) / 2), pytest.approx((0.5 + 1) / 2))


def test_folders_of_several_seeds(fake: FakeScores, tmp_path: Path) -> None:
    training = fake({(1e-3, seed): scored(errors(seed), errors(seed)) for seed in (4, 7)})
    found = sweep(recipe(tmp_path), [("", [])], [4, 7])
    assert [folder for _, _, folder, _ in training.calls] == [
        tmp_path / "runs" / "seed-4", tmp_path / "runs" / "seed-7"
    ]  # fmt: skip
    assert found["variations"][0]["runs"] == ["seed-4", "seed-7"]
    assert found["chosen"] == ""


def test_finished_runs_are_not_trained_again(fake: FakeScores, tmp_path: Path) -> None:
    scores = {(lr, 0): scored(errors(100 * lr), errors(1)) for lr in (0.1, 0.03, 0.01)}
    training = fake(scores)
    one = recipe(tmp_path)
    expected = sweep(one, one.grid(["train.lr=0.1,0.03"]), [0])
    training.calls.clear()
    assert sweep(one, one.grid(["train.lr=0.1,0.03"]), [0], resume=True) == expected
    assert not training.calls
    more = sweep(one, one.grid(["train.lr=0.1,0.03,0.01"]), [0], resume=True)
    assert [(lr, resume) for lr, _, _, resume in training.calls] == [(0.01, True)]
    assert more["variations"][:2] == expected["variations"]
    assert more["chosen"] == "train.lr=0.01"
    assert sweep(one, one.grid(["train.lr=0.1,0.03"]), [0]) == expected  # also without `resume`
    assert len(training.calls) == 1


def test_a_finished_run_of_another_recipe_is_refused(fake: FakeScores, tmp_path: Path) -> None:
    fake({(0.1, 0): scored(errors(1), errors(1))})
    one = recipe(tmp_path)
    sweep(one, [("", ["train.lr=0.1"])], [0])
    changed = one.with_sets(["train.batch=8"])
    with raises(BadInput, "train.batch", tmp_path / "runs"):
        sweep(changed, [("", ["train.lr=0.1"])], [0], resume=True)


def test_repeated_seeds_are_refused(tmp_path: Path) -> None:
    with raises(BadInput, got="0, 1, 0"):
        sweep(recipe(tmp_path), [("", [])], [0, 1, 0])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("train.lr=0.1 trunk.norm=shared", "train.lr=0.1 trunk.norm=shared"),
        ("init=../../../etc", "init=.._.._.._etc"),
        ("..", ""),
        ("domains.a.source=folder:a/b", "domains.a.source=folder_a_b"),
        ("x=" + "9" * 400, "x=" + "9" * 148),
    ],
)
def test_a_label_gives_a_single_folder(label: str, expected: str) -> None:
    folder = folder_of(label, 3)
    assert str(folder) == (f"{expected}/seed-3" if expected else "seed-3")


def test_a_grid_is_trained(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    found = sweep(one, one.grid(["train.lr=0.01,0.001"]), [0])
    for each in found["variations"]:
        (run,) = each["runs"]
        scores = json.loads((tmp_path / "runs" / run / "scores.json").read_text())
        assert each["val"] == pytest.approx(scores["best"][""]["score"])
        test = Table.from_json(scores["test"]).value("digits")
        assert each["test"]["digits/classify/error"]["by_seed"] == [test]
    runs = [tmp_path / "runs" / each["runs"][0] for each in found["variations"]]
    assert [Recipe.read(run).train.lr for run in runs] == [0.01, 0.001]
