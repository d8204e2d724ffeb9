"""The selection of the step whose weights are kept, and early stopping."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest

from onetrunk.errors import Failed
from onetrunk.eval.metrics import headline
from onetrunk.eval.table import Row, Table
from onetrunk.train.selection import Selection


def table(values: Mapping[str, float]) -> Table:
    """Headlines by "domain/task/kind", each with another metric that must be ignored."""
    rows = []
    for unit, value in values.items():
        domain, task, kind = unit.split("/")
        metric = headline(kind)
        rows.append(
            Row(domain, task, metric.name, value, 9, kind, metric.unit, metric.better, True)
        )
        rows.append(Row(domain, task, "other", 1e6, 9, kind))
    return Table(tuple(rows), "val")


def errors(**of: float) -> Table:
    return table({f"{domain}/what/classify": value for domain, value in of.items()})


def test_the_lowest_mean_over_domains_is_the_best() -> None:
    chosen = Selection()
    assert chosen.update(10, errors(ants=40, bees=20))
    assert (chosen.step, chosen.score, chosen.last) == (10, 30, 30)
    assert not chosen.update(20, errors(ants=10, bees=50))  # a mean of 30 again is not better
    assert chosen.update(30, errors(ants=39, bees=20))
    assert not chosen.update(40, errors(ants=1, bees=90))
    assert (chosen.step, chosen.score, chosen.last) == (30, 29.5, 45.5)
    assert chosen.own_best == {"ants": {"step": 40, "score": 1}, "bees": {"step": 10, "score": 20}}


def test_a_domains_error_is_the_mean_over_its_tasks() -> None:
    chosen = Selection()
    chosen.update(1, table({"ants/a/classify": 10, "ants/b/classify": 30, "bees/a/classify": 40}))
    assert chosen.score == (20 + 40) / 2


def test_a_metric_that_is_better_when_higher_is_inverted() -> None:
    chosen = Selection()
    chosen.update(1, table({"rooms/map/segment": 30.0}))
    assert chosen.score == 70
    assert chosen.update(2, table({"rooms/map/segment": 31.0}))


def test_mixed_kinds_are_relative_to_first_errors() -> None:
    chosen = Selection()
    units = ("ants/what/classify", "rooms/map/segment", "rooms/far/depth")

    def update(step: int, *values: float) -> bool:
        return chosen.update(step, table(dict(zip(units, values, strict=True))))

    assert update(1, 80, 20, 4.0)
    assert chosen.score == 1
    assert update(2, 40, 60, 2.0)  # halves of 80, of 100 − 20, and of 4
    assert chosen.score == pytest.approx(0.5)
    assert not update(3, 40, 60, 3.0)
    assert chosen.last == pytest.approx((0.5 + (0.5 + 0.75) / 2) / 2)
    assert chosen.own_best["rooms"] == {"step": 2, "score": pytest.approx(0.5)}


def test_a_first_error_of_0_does_not_dominate() -> None:
    chosen = Selection()
    chosen.update(1, table({"ants/what/classify": 0.0, "rooms/far/depth": 2.0}))
    assert chosen.score == pytest.approx(0.5)
    assert not chosen.update(2, table({"ants/what/classify": 10.0, "rooms/far/depth": 1.0}))
    assert math.isfinite(chosen.last)


def test_patience() -> None:
    chosen = Selection(patience=2)
    for step, (error, stop) in enumerate(
        [(9, False), (9, False), (8, False), (8.5, False), (8, True)], 1
    ):
        chosen.update(step, errors(ants=error))
        assert chosen.out_of_patience == stop
    endless = Selection()
    for step in range(50):
        endless.update(step, errors(ants=1))
    assert not endless.out_of_patience


def test_state_is_restored_at_any_point() -> None:
    units = ("ants/what/classify", "rooms/far/depth")
    evaluations = [(80, 4.0), (70, 4.1), (75, 3.0), (60, 3.9), (60, 3.9), (61, 3.8)]
    expected = Selection(patience=3)
    for at in range(len(evaluations) + 1):
        one, other = Selection(patience=3), Selection(patience=3)
        for step, values in enumerate(evaluations):
            if step == at:
                other.restore(json.loads(json.dumps(one.state())))
            now = table(dict(zip(units, values, strict=True)))
            (one if step < at else other).update(step, now)
        last = one if at == len(evaluations) else other
        if at == 0:
            expected = last
        assert last.state() == expected.state()
        assert last.out_of_patience == expected.out_of_patience
    fresh = Selection()
    fresh.restore(json.loads(json.dumps(Selection().state())))
    assert fresh == Selection()


def test_no_validation_labels_is_an_error() -> None:
    with pytest.raises(Failed) as error:
        Selection().update(1, Table((), "val"))
    assert "validation" in str(error.value)
