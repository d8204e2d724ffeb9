"""The clock: steps, epochs and hours; what is due when."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from onetrunk.train import clock as module
from onetrunk.train.clock import Clock
from tests.helpers.worlds import learner, settings, worlds


def run(clock: Clock) -> dict[str, list[int]]:
    """The steps at which something is due, to the end."""
    due: dict[str, list[int]] = {"log": [], "evaluate": []}
    clock.start()
    while not clock.over:
        clock.tick()
        if clock.log_due:
            due["log"].append(clock.step)
        if clock.evaluation_due:
            due["evaluate"].append(clock.step)
    return due


@pytest.fixture
def time_goes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Every look at the clock is so many seconds later."""
    at = [1000.0]

    def goes(seconds: float) -> None:
        def look() -> float:
            at[0] += seconds
            return at[0]

        monkeypatch.setattr(module.time, "monotonic", look)

    return goes


def test_ten_evaluations_and_a_hundred_lines_unless_something_else_is_said() -> None:
    due = run(Clock.of(settings(steps=4000), 7))
    assert due["evaluate"] == list(range(400, 4001, 400))
    assert due["log"] == list(range(40, 4001, 40))
    due = run(Clock.of(settings(steps=100_000), 7))
    assert due["log"][:2] == [50, 100]  # fifty steps apart at most
    due = run(Clock.of(settings(steps=7), 7))
    assert due == {"log": [1, 2, 3, 4, 5, 6, 7], "evaluate": [1, 2, 3, 4, 5, 6, 7]}
    due = run(Clock.of(settings(steps=11, eval_every=4, log_every=3), 7))
    assert due == {"log": [3, 6, 9, 11], "evaluate": [4, 8, 11]}
    due = run(Clock.of(settings(steps=5, eval_every=100, log_every=100), 7))
    assert due == {"log": [5], "evaluate": [5]}


@pytest.mark.parametrize(
    ("epochs", "accumulate", "steps"), [(1, 1, 30), (2.5, 1, 75), (0.01, 1, 1), (4, 3, 40)]
)
def test_epochs_are_passes_over_the_largest_domain(
    epochs: float, accumulate: int, steps: int
) -> None:
    assert Clock.of(settings(epochs=epochs, accumulate=accumulate), 30).steps == steps


def test_an_epochs_steps_are_the_loaders() -> None:
    domains = worlds("ants", "bees", "cats")  # 24, 36 and 48 training images
    assert [len(domain.train) for domain in domains] == [24, 36, 48]
    assert learner(domains, epochs=2).clock.steps == 2 * 48 / 4
    domains[2].settings = domains[2].settings.model_copy(update={"batch": 20})
    assert learner(worlds("ants", "bees"), epochs=1).clock.steps == 36 / 4


def test_hours_end_and_evaluate_by_time(time_goes: Callable[[float], None]) -> None:
    time_goes(90)
    clock = Clock.of(settings(hours=1), 7)
    due = run(clock)
    assert clock.step == 3600 / 90
    assert due["evaluate"] == list(range(4, 41, 4))
    assert due["log"] == [40]  # fifty steps apart, and the last
    time_goes(1500)  # slow steps: one evaluation each, whatever became due, and one at the end
    assert run(Clock.of(settings(hours=1), 7))["evaluate"] == [1, 2, 3]
    time_goes(90)
    assert run(Clock.of(settings(hours=1, eval_every=16), 7))["evaluate"] == [16, 32, 40]


def test_time_before_a_restart_counts(time_goes: Callable[[float], None]) -> None:
    time_goes(90)
    whole = Clock.of(settings(hours=1), 7)
    expected = run(whole)
    first = Clock.of(settings(hours=1), 7)
    first.start()
    seen = []
    for _ in range(17):
        first.tick()
        if first.evaluation_due:
            seen.append(first.step)
    state = json.loads(json.dumps(first.state()))
    assert state["seconds"] == 17 * 90
    time_goes(10_000)  # between the two nobody learns
    module.time.monotonic()
    time_goes(90)
    second = Clock.of(settings(hours=1), 7)
    second.restore(state)
    assert (second.step, second.progress) == (17, pytest.approx(17 / 40))
    rest = run(second)
    assert [*seen, *rest["evaluate"]] == expected["evaluate"]
    assert second.step == whole.step


def test_what_people_are_told(time_goes: Callable[[float], None]) -> None:
    time_goes(3)
    clock: Any = Clock.of(settings(steps=4000), 7)
    clock.start()
    for _ in range(1000):
        clock.tick()
    assert clock.progress == 0.25
    assert clock.left == pytest.approx(3 * 3000)
    assert clock.described == "4,000"
    assert Clock.of(settings(hours=1.5), 7).described == "1.5 hours"
