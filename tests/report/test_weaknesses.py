"""Signs that a network is not trained enough: near a floor, still improving, too short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onetrunk.eval.margins import Estimate
from onetrunk.report.curves import training_curves
from onetrunk.report.run_files import RunFiles, RunGroup, read_groups
from onetrunk.report.weaknesses import (
    epochs_of,
    is_barely_better,
    still_improving,
    weaknesses_of,
)
from tests.helpers.runs import make_run
from tests.helpers.small import domain

TWO = [domain("a"), domain("b", seed=1)]


@pytest.mark.parametrize(
    ("error", "gain", "scale", "expected"),
    [
        (50.0, Estimate(10.0, 8.0, 12.0), 100.0, False),
        (50.0, Estimate(10.0, -1.0, 21.0), 100.0, True),  # the interval contains 0
        (50.0, Estimate(1.9, 1.5, 2.3), 100.0, True),  # less than two points
        (50.0, Estimate(-3.0, -4.0, -2.0), 100.0, True),
        (1.5, Estimate(0.1, -0.4, 0.6), 100.0, False),  # good, however easy the images are
        (1.0, Estimate(0.05, 0.04, 0.06), 4.0, True),  # metres; a point is 0.04
        (1.0, Estimate(0.09, 0.04, 0.14), 4.0, False),
        (1.0, Estimate(0.05, 0.04, 0.06), None, False),
        (1.0, Estimate(0.05), None, False),
    ],
)
def test_barely_better_than_a_floor(
    error: float, gain: Estimate, scale: float | None, expected: bool
) -> None:
    assert is_barely_better(error, gain, scale) is expected


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([60.0, 40.0, 30.0], True),
        ([60.0, 40.0, 39.0], False),  # by less than the margin
        ([60.0, 30.0, 40.0], False),
        ([60.0, 20.0, 40.0, 30.0], False),  # the last one is not the best
        ([60.0], False),
        ([], False),
    ],
)
def test_still_improving_at_the_last_validation(errors: list[float], expected: bool) -> None:
    assert still_improving(errors, 100.0) is expected


def test_an_improvement_by_one_image_shows_nothing() -> None:
    assert still_improving([20.0, 15.0], 100.0, image=4.0)
    assert not still_improving([20.0, 15.0], 100.0, image=5.0)


def run_files(records: list[dict[str, object]], train: int = 100) -> RunFiles:
    splits = {"splits": {"a": {"how": "", "train": train}, "b": {"how": "", "train": train}}}
    return RunFiles(Path("run"), "", {}, splits, {}, tuple(records))


def test_epochs_follow_from_the_images_per_second_of_each_part() -> None:
    records: list[dict[str, object]] = [
        {"step": 4, "part": "a", "seconds": 2.0, "images_per_s": {"a": 100.0}},
        {"step": 5, "part": "a", "val": {}},
        {"step": 8, "part": "a", "seconds": 3.0, "images_per_s": {"a": 50.0}},
        {"step": 4, "part": "b", "seconds": 0.5, "images_per_s": {"b": 300.0}},
    ]
    assert epochs_of(run_files(records)) == {"a": pytest.approx(2.5), "b": pytest.approx(1.5)}
    assert epochs_of(run_files([{"step": 0, "frozen": "a/classify", "seconds": 1.0}])) == {}


def found(group: RunGroup, floors: dict[str, RunGroup]) -> list[tuple[str, str]]:
    curves = training_curves([(-1, group)])
    return [(w.domain, w.kind) for w in weaknesses_of(group, -1, curves, floors)]


def test_the_weaknesses_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "alone", TWO, {"a": 50.0, "b": 20.0}, sharing="none", images=500)
    make_run(tmp_path / "floor", TWO, {"a": 51.0, "b": 60.0}, images=500, model=False)
    group, floor = read_groups([tmp_path / "alone", tmp_path / "floor"])
    assert found(group, {}) == []
    assert found(group, {"neighbour": floor}) == [("a", "neighbour")]
    rates = {"step": 4, "part": "b", "seconds": 1.0, "images_per_s": {"b": 10.0}}
    val = {"step": 500, "part": "a", "val": {"a/classify/error": 20.0}}
    run = replace(group.first, records=(*group.first.records, val, rates))
    short = replace(group, runs=(run,))
    assert found(short, {}) == [("a", "improving"), ("b", "short")]


def test_solved_heads_are_not_compared_with_the_same_floor(tmp_path: Path) -> None:
    make_run(tmp_path / "frozen", TWO, {"a": 50.0, "b": 20.0}, images=500, extra={"frozen": True})
    (group,) = read_groups([tmp_path / "frozen"])
    assert found(group, {"features": group}) == []
    assert [domain for domain, _ in found(group, {"neighbour": group})] == ["a", "b"]
