"""The plan: steps that fit the time, the cost of the search, and durations."""

from __future__ import annotations

import pytest

from onetrunk.errors import BadInput
from onetrunk.runs.unify.plan import (
    MAX_EPOCHS,
    MIN_STEPS,
    RUNGS,
    Costs,
    Shape,
    make_plan,
    parse_time,
    search_factor,
    search_validations,
    seconds_by_stage,
    survivors,
)
from onetrunk.runs.unify.stages import EVALUATIONS
from tests.helpers.errors import raises

COSTS = Costs(specialists=1.0, joint=0.9, validation=2.0, test=4.0, epoch=50)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1, 1]), (2, [1, 1]), (3, [2, 1]), (4, [2, 1]), (8, [4, 1])]
)
def test_the_rates_that_go_on(count: int, expected: list[int]) -> None:
    assert survivors(count) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_cost_of_a_search_is_counted_step_by_step(count: int) -> None:
    steps = 100
    trained, validated, running, rungs = (
        0,
        count,
        count,
        dict(zip(RUNGS, survivors(count), strict=True)),
    )
    every = steps // EVALUATIONS
    for step in range(1, steps + 1):
        trained += running
        validated += running if step % every == 0 else 0
        for rung, left in rungs.items():
            if step == round(rung * steps):
                running = left
    assert search_factor(count) == pytest.approx(trained / steps)
    assert search_validations(count) == validated


@pytest.mark.parametrize("seconds", [2000.0, 5000.0, 12000.0])
@pytest.mark.parametrize("several", [True, False])
def test_the_longest_plan_that_fits(seconds: float, several: bool) -> None:
    plan = make_plan(COSTS, seconds, Shape(3, several))
    assert plan.total <= seconds
    if plan.steps < MAX_EPOCHS * COSTS.epoch:
        longer = seconds_by_stage(COSTS, plan.steps + 1, Shape(3, several))
        assert sum(longer.values()) > seconds


def test_a_long_time_does_not_train_for_ever() -> None:
    assert make_plan(COSTS, 1e9, Shape(3)).steps == MAX_EPOCHS * COSTS.epoch


def test_a_time_below_one_epoch_names_a_time_that_is_enough() -> None:
    with raises(BadInput, "too short") as info:
        make_plan(COSTS, 100.0, Shape(3))
    words = str(info.value.try_).split()
    enough = parse_time(words[words.index("--time") + 1].rstrip(","))
    assert make_plan(COSTS, enough, Shape(3)).steps >= max(MIN_STEPS, COSTS.epoch)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("1m30s", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "two hours", "0m", "-1h", "1h-", "1m1h", "1e3s"])
def test_a_duration_that_cannot_be_read(text: str) -> None:
    with raises(BadInput, "30m", got=text, place="--time"):
        parse_time(text)
