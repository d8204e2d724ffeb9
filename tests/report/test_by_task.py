"""Networks of one task each, held against one network of them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onetrunk.eval.outcomes import Outcomes, Part
from onetrunk.eval.table import Row, Table
from onetrunk.report.by_task import by_task
from onetrunk.report.runs import Group, Run


def group(*units: tuple[str, str]) -> Group:
    """A finished run with a score for each (domain, task)."""
    rows = tuple(
        Row(domain, task, "abs", float(i), 4, "depth", "m", "lower", True)
        for i, (domain, task) in enumerate(units)
    )
    scores = {split: Table(rows, split).to_json() for split in ("val", "test")}
    parts = {u: Part("depth", {"sum": np.ones(4), "count": np.ones(4)}) for u in units}
    held = Outcomes("test", parts, {domain: "same images" for domain, _ in units})
    return Group("run", (Run(Path("run"), "", {}, scores, {}, (), held),))


def units(found: Group) -> list[tuple[str, str, float]]:
    assert found.first.test is not None
    assert found.first.val is not None
    test, val = found.first.test.rows, found.first.val.rows
    assert [(r.domain, r.task) for r in test] == [(r.domain, r.task) for r in val]
    return [(row.domain, row.task, row.value) for row in test]


def test_a_network_of_a_task_counts_as_that_task() -> None:
    one = group(("rooms", "depth"), ("rooms", "far"), ("shop", "depth"))
    alone = group(("rooms-depth", "depth"), ("rooms-far", "far"), ("shop", "depth"))
    found = by_task(alone, [one])
    assert units(found) == [("rooms", "depth", 0), ("rooms", "far", 1), ("shop", "depth", 2)]
    outcomes = found.first.outcomes
    assert outcomes is not None
    assert list(outcomes.parts) == [("rooms", "depth"), ("rooms", "far"), ("shop", "depth")]
    assert set(outcomes.names) == {"rooms", "shop"}


def test_what_has_that_name_already_or_other_tasks_stays() -> None:
    one = group(("rooms", "depth"), ("shop", "depth"))
    there = group(("rooms", "depth"), ("rooms-depth", "depth"))
    assert by_task(there, [one]) is there
    several = group(("shop-depth", "depth"), ("shop-depth", "far"))
    assert by_task(several, [one]) is several
    other = group(("rooms-depth", "far"))
    assert by_task(other, [one]) is other
