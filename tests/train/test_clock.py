"""The clock (steps, epochs, hours, what is due), and the means of log lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from onetrunk.train.clock import Clock, Means
from tests.helpers.worlds import learner, settings, worlds


def run(clock: Clock) -> dict[str, list[int]]:
    """Run to the end; return the steps at which something was due."""
    due: dict[str, list[int]] = {"log": [], "evaluate": []}
    clock.start()
    while not clock.over:
        clock.tick()
        if clock.log_due:
            due["log"].append(clock.step)
        if clock.evaluation_due():
            due["evaluate"].append(clock.step)
    return due


@pytest.fixture
def set_pace(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let each reading of the clock be some seconds later."""
    at = [1000.0]

    def set_seconds(seconds: float) -> None:
        def monotonic() -> float:
            at[0] += seconds
            return at[0]

        monkeypatch.setattr(time, "monotonic", monotonic)

    return set_seconds


def test_default_intervals_give_ten_evaluations_and_a_hundred_lines() -> None:
    due = run(Clock.of(settings(steps=4000), 7))
    assert due["evaluate"] == list(range(400, 4001, 400))
    assert due["log"] == list(range(40, 4001, 40))
    due = run(Clock.of(settings(steps=100_000), 7))
    assert due["log"][:2] == [50, 100]  # at most fifty steps apart
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


def test_steps_of_an_epoch_come_from_the_loader() -> None:
    domains = worlds("ants", "bees", "cats")  # 24, 36 and 48 training images
    assert [len(domain.train) for domain in domains] == [24, 36, 48]
    assert learner(domains, epochs=2).clock.steps == 2 * 48 / 4
    domains[2].settings = domains[2].settings.model_copy(update={"batch": 20})
    assert learner(worlds("ants", "bees"), epochs=1).clock.steps == 36 / 4


def test_hours_limit_the_run_and_its_evaluations(set_pace: Callable[[float], None]) -> None:
    set_pace(90)
    clock = Clock.of(settings(hours=1), 7)
    due = run(clock)
    assert clock.step == 3600 / 90
    assert due["evaluate"] == list(range(4, 41, 4))
    assert due["log"] == [40]  # fifty steps apart, and the last
    set_pace(1500)  # slow steps: at most one evaluation each
    assert run(Clock.of(settings(hours=1), 7))["evaluate"] == [1, 2, 3]
    set_pace(90)
    assert run(Clock.of(settings(hours=1, eval_every=16), 7))["evaluate"] == [16, 32, 40]


def test_time_before_a_restart_counts(set_pace: Callable[[float], None]) -> None:
    set_pace(90)
    full = Clock.of(settings(hours=1), 7)
    expected = run(full)
    first = Clock.of(settings(hours=1), 7)
    first.start()
    due = []
    for _ in range(17):
        first.tick()
        if first.evaluation_due():
            due.append(first.step)
    state = json.loads(json.dumps(first.state()))
    assert state["seconds"] == 17 * 90
    set_pace(10_000)  # between the two runs
    time.monotonic()
    set_pace(90)
    second = Clock.of(settings(hours=1), 7)
    second.restore(state)
    assert second.step == 17
    assert second.progress == pytest.approx(17 / 40)
    rest = run(second)
    assert [*due, *rest["evaluate"]] == expected["evaluate"]
    assert second.step == full.step


def test_time_left_and_length(set_pace: Callable[[float], None]) -> None:
    set_pace(3)
    clock: Any = Clock.of(settings(steps=4000), 7)
    clock.start()
    for _ in range(1000):
        clock.tick()
    assert clock.progress == 0.25
    assert clock.left == pytest.approx(3 * 3000)
    assert clock.length == "4,000"
    assert Clock.of(settings(hours=1.5), 7).length == "1.5 hours"


def at(seconds: float, step: int) -> Clock:
    return Clock(steps=100, hours=0, evaluate=10, log=10, step=step, seconds=seconds)


def test_a_line_holds_means_since_the_last_line() -> None:
    means = Means()
    means.add({"ants/what": 2.0, "bees/what": 1.0}, {"ants": 64, "bees": 32}, 0.1)
    means.add({"ants/what": 4.0}, {"ants": 64}, 0.05)
    line = means.take(at(4.0, 20))
    assert line == {
        "lr": 0.05,
        "loss": {"ants/what": 3.0, "bees/what": 1.0},
        "images_per_s": {"ants": 32.0, "bees": 8.0},
        "seconds": 4.0,
        "left_s": 16.0,
    }
    means.add({"bees/what": 5.0}, {"bees": 32}, 0.01)
    line = means.take(at(6.0, 30))
    assert line["loss"] == {"bees/what": 5.0}
    assert line["images_per_s"] == {"bees": 16.0}


def test_means_are_restored_in_the_middle_of_a_line() -> None:
    one, other = Means(), Means()
    for value in (0.1, 0.2, 0.30000000000000004):
        one.add({"ants/what": value}, {"ants": 3}, value)
    state = json.loads(json.dumps(one.state()))
    other.restore(state)
    for means in (one, other):
        means.add({"bees/what": 1 / 3, "ants/what": 0.7}, {"ants": 3, "bees": 1}, 1.0)
    assert other.take(at(2.0, 4)) == one.take(at(2.0, 4))


def test_a_saved_state_does_not_change() -> None:
    means = Means()
    means.add({"ants/what": 1.0}, {"ants": 3}, 0.1)
    state = means.state()
    means.add({"ants/what": 1.0}, {"ants": 3}, 0.1)
    assert state["losses"] == {"ants/what": 1.0}
    assert state["images"] == {"ants": 3}
    assert state["rate"] == pytest.approx(0.1)
