"""Lines: means since the last one, the same after going on."""

from __future__ import annotations

import json

import pytest

from onetrunk.train.clock import Clock
from onetrunk.train.means import Tally


def clock(seconds: float, step: int) -> Clock:
    return Clock(steps=100, hours=0, evaluate=10, log=10, step=step, seconds=seconds)


def test_a_line_is_of_the_steps_since_the_last() -> None:
    tally = Tally()
    tally.add({"ants/what": 2.0, "bees/what": 1.0}, {"ants": 64, "bees": 32}, 0.1)
    tally.add({"ants/what": 4.0}, {"ants": 64}, 0.05)
    line = tally.take(clock(4.0, 20))
    assert line == {
        "lr": 0.05,
        "loss": {"ants/what": 3.0, "bees/what": 1.0},
        "images_per_s": {"ants": 32.0, "bees": 8.0},
        "seconds": 4.0,
        "left_s": 16.0,
    }
    tally.add({"bees/what": 5.0}, {"bees": 32}, 0.01)
    line = tally.take(clock(6.0, 30))
    assert line["loss"] == {"bees/what": 5.0}
    assert line["images_per_s"] == {"bees": 16.0}


def test_going_on_in_the_middle_of_a_line() -> None:
    one, other = Tally(), Tally()
    for value in (0.1, 0.2, 0.30000000000000004):
        one.add({"ants/what": value}, {"ants": 3}, value)
    state = json.loads(json.dumps(one.state()))
    other.restore(state)
    for tally in (one, other):
        tally.add({"bees/what": 1 / 3, "ants/what": 0.7}, {"ants": 3, "bees": 1}, 1.0)
    assert other.take(clock(2.0, 4)) == one.take(clock(2.0, 4))


def test_a_state_that_is_held_does_not_go_on() -> None:
    tally = Tally()
    tally.add({"ants/what": 1.0}, {"ants": 3}, 0.1)
    state = tally.state()
    tally.add({"ants/what": 1.0}, {"ants": 3}, 0.1)
    assert state["losses"] == {"ants/what": 1.0}
    assert state["images"] == {"ants": 3}
    assert state["rate"] == pytest.approx(0.1)
