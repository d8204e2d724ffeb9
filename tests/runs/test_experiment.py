"""Seeds and grids: one folder per run, chosen on validation, and finished runs are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


class Trained:
    """In place of training: scores by learning rate and seed; `calls` has what was trained."""

    def __init__(self, scores: Mapping[tuple[float, int], Mapping[str, Any]]) -> None:
        self.scores = scores
        self.calls: list[tuple[float, int, Path, bool]] = []

    def __call__(self, one: Recipe, *, resume: bool, device: str | None) -> Any:
        self.calls.append((one.train.lr, one.seed, one.out_folder, resume))
        folder = one.out_folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(one.moved_to(folder).to_toml())
        scores = self.scores[one.train.lr, one.seed]
        (folder / "scores.json").write_text(json.dumps(scores))
        return Run(folder)


def scored(val: Mapping[str, float], test: Mapping[str, float], best: float = 1.0) -> Any:
    found = {"val": table("val", val), "test": table("test", test)}
    return {**found, "best": {"": {"step": 1, "score": best}}}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Any:
    def replace(scores: Mapping[tuple[float, int], Mapping[str, Any]]) -> Trained:
        made = Trained(scores)
        monkeypatch.setattr(experiment, "train_recipe", made)
        return made

    return replace


def errors(value: float) -> dict[str, float]:
    return {"ants/classify": value, "bees/classify": value + 10}


def test_the_lowest_mean_validation_error_is_chosen(tried: Any, tmp_path: Path) -> None:
    made = tried(
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
    places = [place for _, _, place, _ in made.calls]
    assert places == [tmp_path / "runs" / run for v in found["variations"] for run in v["runs"]]
    assert json.loads((tmp_path / "runs" / "sweep.json").read_text()) == found


def test_runs_with_mixed_kinds_are_compared_in_the_same_units(tried: Any, tmp_path: Path) -> None:
    """The score of a run is relative to its first evaluation: after a bad start it would be low."""
    low = {"ants/classify": 20.0, "rooms/depth": 1.0}
    high = {"ants/classify": 60.0, "rooms/depth": 1.0}
    tried({(0.1, 0): scored(high, high, best=0.3), (0.03, 0): scored(low, low, best=0.9)})
    one = recipe(tmp_path)
    found = sweep(one, one.grid(["train.lr=0.1,0.03"]), [0])
    assert found["chosen"] == "train.lr=0.03"
    worse, better = (each["val"] for each in found["variations"])
    assert (worse, better) == (pytest.approx((1.5 + 1) / 2), pytest.approx((0.5 + 1) / 2))


def test_seeds_alone_lie_in_the_runs_own_folder(tried: Any, tmp_path: Path) -> None:
    made = tried({(1e-3, seed): scored(errors(seed), errors(seed)) for seed in (4, 7)})
    found = sweep(recipe(tmp_path), [("", [])], [4, 7])
    assert [place for _, _, place, _ in made.calls] == [
        tmp_path / "runs" / "seed-4", tmp_path / "runs" / "seed-7"
    ]  # fmt: skip
    assert found["variations"][0]["runs"] == ["seed-4", "seed-7"]
    assert found["chosen"] == ""


def test_finished_runs_are_not_trained_again(tried: Any, tmp_path: Path) -> None:
    scores = {(lr, 0): scored(errors(100 * lr), errors(1)) for lr in (0.1, 0.03, 0.01)}
    made = tried(scores)
    one = recipe(tmp_path)
    whole = sweep(one, one.grid(["train.lr=0.1,0.03"]), [0])
    made.calls.clear()
    assert sweep(one, one.grid(["train.lr=0.1,0.03"]), [0], resume=True) == whole
    assert not made.calls
    more = sweep(one, one.grid(["train.lr=0.1,0.03,0.01"]), [0], resume=True)
    assert [(lr, resume) for lr, _, _, resume in made.calls] == [(0.01, True)]
    assert more["variations"][:2] == whole["variations"]
    assert more["chosen"] == "train.lr=0.01"
    assert sweep(one, one.grid(["train.lr=0.1,0.03"]), [0]) == whole  # without resume as well
    assert len(made.calls) == 1


def test_a_finished_run_of_another_recipe_is_refused(tried: Any, tmp_path: Path) -> None:
    tried({(0.1, 0): scored(errors(1), errors(1))})
    one = recipe(tmp_path)
    sweep(one, [("", ["train.lr=0.1"])], [0])
    changed = one.with_sets(["train.batch=8"])
    with raises(BadInput, "train.batch", tmp_path / "runs"):
        sweep(changed, [("", ["train.lr=0.1"])], [0], resume=True)


def test_each_seed_once(tmp_path: Path) -> None:
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
def test_a_labels_folder_is_one_folder_below(label: str, expected: str) -> None:
    place = folder_of(label, 3)
    assert str(place) == (f"{expected}/seed-3" if expected else "seed-3")


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
