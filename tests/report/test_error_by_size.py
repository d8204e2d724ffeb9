"""All runs by size: which mean is compared, its interval, and the chart's geometry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from onetrunk.eval.budget import Budget, Cost
from onetrunk.eval.margins import Estimate
from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import Row
from onetrunk.report.charts import PLOT, STEP, Name, ScatterPlot, place_beside, side_by_side
from onetrunk.report.columns import Column, Score
from onetrunk.report.error_by_size import error_by_size, mean_over_domains, short_bytes
from onetrunk.report.findings import Findings
from onetrunk.report.page import page
from onetrunk.report.verdict import TaskComparison, Verdict
from tests.report.markup import check

KINDS = {"error": ("classify", "%"), "miou": ("segment", "%"), "abs": ("depth", "m")}


def scores(values: Mapping[str, float], half: float = 1.0) -> dict[Key, Score]:
    """Return scores by domain; `rooms:miou` is a domain with another metric."""
    found = {}
    for name, value in values.items():
        domain, _, metric = name.partition(":")
        kind, unit = KINDS[metric or "error"]
        better = "higher" if metric == "miou" else "lower"
        row = Row(domain, kind, metric or "error", value, 100, kind, unit, better)  # type: ignore[arg-type]
        found[domain, kind] = Score(row, Estimate(value, value - half, value + half), ())
    return found


def column(name: str, size: int, values: Mapping[str, float], **keys: object) -> Column:
    budgets = {"": Budget("resnet20", Cost(size // 4, size, 1), ())} if size else {}
    given = {"css": "g0", "description": "", "separate": False, "seeds": (0,), "finished": 1}
    return Column(name, scores=scores(values), budgets=budgets, **{**given, **keys})  # type: ignore[arg-type]


def findings(columns: Sequence[Column], baseline: Column | None = None) -> Findings:
    verdict = Verdict("undecided", "It is undecided.")
    return Findings("", "", "", verdict, tuple(columns), baseline, (), (), (), (), False)


def plot_of(found: Findings) -> ScatterPlot:
    runs = error_by_size(found)
    assert runs is not None and runs.plot is not None
    return runs.plot


def test_errors_in_percent_are_averaged_and_sorted_by_size() -> None:
    one = column("one", 1000, {"a": 10.0, "b": 20.0})
    two = column("two", 500, {"a": 20.0, "b": 40.0, "rooms:abs": 3.0})
    runs = error_by_size(findings([one, two]))
    assert runs is not None and not runs.relative
    assert [entry.name for entry in runs.entries] == ["two", "one"]
    assert [entry.mean and entry.mean.value for entry in runs.entries] == [30.0, 15.0]
    assert runs.keys == (("a", "classify"), ("b", "classify"))  # that both have
    assert error_by_size(findings([one])) is None


def test_a_score_where_higher_is_better_counts_as_an_error() -> None:
    runs = error_by_size(findings([column(n, 9, {"a": 10.0, "r:miou": 70.0}) for n in "xy"]))
    assert runs is not None and runs.entries[0].mean is not None
    assert runs.entries[0].mean.value == 20.0


def test_other_units_are_compared_relative_to_the_baseline() -> None:
    base = column("base", 4000, {"a": 10.0, "rooms:abs": 2.0, "walls:miou": 50.0})
    ours = column("ours", 1000, {"a": 12.0, "rooms:abs": 1.0, "walls:miou": 60.0})
    runs = error_by_size(findings([ours], base))
    assert runs is not None and runs.relative and runs.plot is not None
    means = [entry.mean for entry in runs.entries]
    assert means[1] == Estimate(0.0, 0.0, 0.0) or means[1] == Estimate(0.0)
    assert means[0] is not None
    assert means[0].value == pytest.approx((20 - 50 - 20) / 3)  # is −Δ
    half = math.sqrt(2)  # of the difference of two scores ± 1
    distances = [half / 10, half / 2, half / 50]
    assert means[0].high == pytest.approx(means[0].value + 100 * math.hypot(*distances) / 3)
    known = TaskComparison(
        "a", "classify", Estimate(12.0), Estimate(10.0), Estimate(2.0, 1.0, 4.0), 0.5, "worse"
    )
    paired = error_by_size(findings([replace(ours, comparisons=(known,))], base))
    assert paired is not None and paired.entries[0].mean is not None
    distances[0] = 0.2  # from 2 to 4 points of 10, not the wider one of two scores
    assert paired.entries[0].mean.high == pytest.approx(
        means[0].value + 100 * math.hypot(*distances) / 3
    )
    alone = error_by_size(findings([ours, base]))
    assert alone is not None and alone.plot is None
    assert all(entry.mean is None for entry in alone.entries)
    check(page(findings([ours, base])))
    check(page(findings([ours], base)))


def test_the_interval_of_a_mean() -> None:
    parts = {("a", "t"): Estimate(10.0, 7.0, 14.0), ("b", "t"): Estimate(20.0, 16.0, 23.0)}
    found = mean_over_domains(parts)
    assert (found.value, found.low, found.high) == (15.0, 12.5, 17.5)
    same = {("a", "t"): parts["a", "t"], ("a", "u"): parts["b", "t"]}  # the same images
    found = mean_over_domains(same)
    assert (found.value, found.low, found.high) == (15.0, 11.5, 18.5)
    assert mean_over_domains({**parts, ("c", "t"): Estimate(30.0)}) == Estimate(20.0)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("equal", [False, True])
def test_all_marks_and_names_are_inside_of_the_chart(count: int, equal: bool) -> None:
    names = [f"a-run-with-a-long-name-{i}" for i in range(count)]
    columns = [
        column(name, 1000 if equal else 1000 * 3**i, {"a": 12.0 + 0.1 * i, "b": 30.0})
        for i, name in enumerate(names)
    ]
    plot = plot_of(findings(columns))
    left, right, top, bottom = PLOT
    assert len(plot.points) == len(plot.names) == len(plot.bars) == count
    assert len({x for _, x, _ in plot.points}) == count
    assert all(left <= x <= right and top <= y <= bottom for _, x, y in plot.points)
    assert all(top - 1 <= bar.high < bar.low <= bottom + 1 for bar in plot.bars)
    assert all(left <= tick.at <= right for tick in plot.x_ticks) and len(plot.x_ticks) >= 2
    assert len({tick.text for tick in plot.x_ticks}) == len(plot.x_ticks)
    for name in plot.names:
        assert len(name.text) <= 20 and name.text.endswith("…")
        assert name.x + 44 <= 100 if name.anchor == "start" else name.x - 44 >= 0
    assert not overlapping(plot.names)


def overlapping(names: Sequence[Name]) -> list[tuple[str, str]]:
    """Return the names that cover each other on a phone."""

    def span(name: Name) -> tuple[float, float]:
        width = 2.0 * len(name.text)
        return (name.x, name.x + width) if name.anchor == "start" else (name.x - width, name.x)

    return [
        (a.text, b.text)
        for a, b in itertools.combinations(names, 2)
        if abs(a.y - b.y) < 4.5 and span(a)[0] < span(b)[1] and span(b)[0] < span(a)[1]
    ]


def test_the_chosen_run_and_the_baseline_are_marked() -> None:
    columns = [column("x", 1000, {"a": 10.0}), column("y", 2000, {"a": 9.0})]
    base = column("z", 8000, {"a": 9.0}, css="base", separate=True)
    found = replace(findings(columns, base), chosen=1)
    plot = plot_of(found)
    assert [mark.shape for mark, _, _ in plot.points] == ["run", "chosen", "baseline"]
    assert [name.text for name in plot.names if name.strong] == ["y"]
    text = page(found)
    assert check(text).having("chosen") and '<small class="tag">chosen</small>' in text
    assert "The ring marks the chosen network." in text
    assert "chosen</small>" not in page(findings(columns, base))


def test_what_has_no_size_is_a_line() -> None:
    columns = [column("x", 1000, {"a": 10.0}), column("y", 2000, {"a": 9.0})]
    table = column("theirs.csv", 0, {"a": 9.5})
    near, far = scores({"a": 11.0}), scores({"a": 80.0})
    found = replace(
        findings(columns, table), floors={"neighbour": near, "constant": far, "features": {}}
    )
    runs = error_by_size(found)
    assert runs is not None and runs.plot is not None
    names = [level.name for level in runs.plot.levels]
    assert names == ["theirs.csv", "nearest neighbour on pixels"]
    assert runs.left_out == (("constant prediction", "80.00 %"),)
    assert [entry.mean for entry in runs.entries][2] is None
    check(page(found))


def test_marks_of_one_size_are_side_by_side() -> None:
    assert side_by_side([10.0, 50.0]) == [10.0, 50.0]
    assert side_by_side([50.0, 10.0, 50.0]) == [50 - STEP / 2, 10.0, 50 + STEP / 2]
    assert side_by_side([50.0] * 3) == [50 - STEP, 50.0, 50 + STEP]


def test_a_name_is_beside_its_mark_if_there_is_room() -> None:
    (first, second) = place_beside([(20.0, 30.0), (90.0, 30.0)], ["one", "other"], [False, True])
    assert (first.x, first.y, first.anchor, first.leader) == (20.0, 30.0, "start", None)
    assert (second.x, second.anchor, second.strong) == (90.0, "end", True)


def test_sizes_are_short() -> None:
    assert [short_bytes(v) for v in (500, 1e3, 2e6, 1.5e9)] == [
        *("500\u00a0B", "1\u00a0kB", "2\u00a0MB", "1.5\u00a0GB")
    ]
