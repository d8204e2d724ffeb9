"""Successive halving: which rates go on, also when trainings diverge or the work is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onetrunk.config import Recipe
from onetrunk.errors import Diverged, Failed
from onetrunk.runs.unify.search import search
from tests.helpers.errors import raises

RATES = (1e-3, 1e-2, 1e-1)


class Trainings:
    """Trainings whose validation error at a step is a function of the rate."""

    def __init__(self, root: Path, errors: dict[float, list[float]]) -> None:
        self.root, self.errors = root, errors
        self.calls: list[tuple[float, int | None]] = []
        self.record: dict[str, Any] = {}

    def recipe_of(self, rate: float) -> Recipe:
        document = {
            "name": "x",
            "out": "x",
            "domains": [{"name": "one", "source": "folder:one"}],
            "train": {"lr": rate, "steps": 100, "eval_every": 10},
        }
        return Recipe.parse(json_to_toml(document), self.root)

    def train(self, recipe: Recipe, step: int | None) -> None:
        rate = recipe.train.lr
        self.calls.append((rate, step))
        recipe.out_folder.mkdir(parents=True, exist_ok=True)
        if step is None:
            return
        error = self.errors[rate][0 if step == 10 else 1]
        if error < 0:
            raise Diverged("not finite")
        with (recipe.out_folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "score": error}) + "\n")

    def search(self) -> float:
        done = search("x", RATES, self.recipe_of, self.train, self.record, lambda: None)
        assert done.out_folder.is_dir() and len(list(self.root.iterdir())) == 1
        return done.train.lr


def json_to_toml(document: dict[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(document)


def test_the_best_rate_at_the_last_rung_wins(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path, {1e-3: [50.0, 20.0], 1e-2: [40.0, 30.0], 1e-1: [60.0, 1.0]})
    assert trainings.search() == 1e-3
    assert trainings.calls == [(1e-3, 10), (1e-2, 10), (1e-1, 10), (1e-3, 30), (1e-2, 30)]
    assert trainings.record["rungs"][1] == {"step": 30, "scores": {"0.001": 20.0, "0.01": 30.0}}


def test_of_equal_errors_the_lower_rate_wins(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path, {rate: [50.0, 50.0] for rate in RATES})
    assert trainings.search() == 1e-3


def test_a_rate_that_diverges_is_dropped(tmp_path: Path) -> None:
    errors = {1e-3: [50.0, -1.0], 1e-2: [60.0, 30.0], 1e-1: [-1.0, -1.0]}
    trainings = Trainings(tmp_path, errors)
    assert trainings.search() == 1e-2
    assert trainings.record["rungs"][0]["scores"]["0.1"] is None


def test_only_one_rate_is_left_after_two_diverge(tmp_path: Path) -> None:
    errors = {1e-3: [50.0, 9.0], 1e-2: [-1.0, -1.0], 1e-1: [-1.0, -1.0]}
    assert Trainings(tmp_path, errors).search() == 1e-3


def test_all_rates_diverge(tmp_path: Path) -> None:
    with raises(Failed, "every learning rate", try_="train.lr"):
        Trainings(tmp_path, {rate: [-1.0, -1.0] for rate in RATES}).search()


@pytest.mark.parametrize("calls", range(5))
def test_an_interrupted_search_continues(tmp_path: Path, calls: int) -> None:
    errors = {1e-3: [50.0, 20.0], 1e-2: [40.0, 30.0], 1e-1: [60.0, 1.0]}
    trainings = Trainings(tmp_path, errors)
    train, left = trainings.train, [calls]

    def interrupted(recipe: Recipe, step: int | None) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        train(recipe, step)

    trainings.train = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainings.search()
    trainings.record = json.loads(json.dumps(trainings.record))
    trainings.train = train  # type: ignore[method-assign]
    assert trainings.search() == 1e-3
