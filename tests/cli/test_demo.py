"""`onetrunk demo`, with a few steps in place of hundreds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from onetrunk.config import Recipe
from tests.helpers.verbs import Ran

QUICK = ("train.steps=3", "train.eval_every=3", "train.batch=8", "domains.emoji.size=12")
NAMES = {"digits", "flags", "emoji", "creatures"}


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Recipe.named

    def short(name: str, sets: Sequence[str] = ()) -> Recipe:
        return named(name, [*QUICK, *sets])

    monkeypatch.setattr(Recipe, "named", short)


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_a_finished_demo_is_not_trained_again(onetrunk: Callable[..., Ran], tmp_path: Path) -> None:
    first = onetrunk("demo", "--json")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert found["domains"].keys() == NAMES
    page = (tmp_path / "runs/demo/report.html").read_text("utf-8")
    assert set(page.replace("<", " ").replace(">", " ").split()) >= NAMES
    specialists, universal = found["parameters"]["specialists"], found["parameters"]["universal"]
    assert universal < 0.35 * specialists
    for name in ("specialists", "universal"):
        scores = json.loads((tmp_path / "runs/demo" / name / "scores.json").read_text())
        assert {row["domain"] for row in scores["test"]["rows"]} == NAMES

    again = onetrunk("demo")
    assert again.code == 0, again.err
    assert "is already finished" in again.err
    for name, errors in found["domains"].items():
        assert f"{errors['universal']:.2f}" in again.out, name
    assert "onetrunk predict" in again.out and "report.html" in again.out
