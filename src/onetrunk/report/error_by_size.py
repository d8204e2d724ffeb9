"""All runs side by side: the mean test error of each against its size.

Where every score is in percent, the mean over tasks of the errors is compared (100 − score where
higher is better). Where units differ, it is the mean over tasks of the loss relative to the
baseline in percent, which is −Δ (summary.py); without a baseline there is no mean.

The interval of a mean of independent scores m = Σ v_i/n follows from theirs (MOVER, Zou & Donner
2008): its lower end is m − √Σ(v_i − low_i)²/n, its upper end m + √Σ(high_i − v_i)²/n. The tasks of
one domain have the same images, so their distances are added before they are squared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onetrunk.display import scaled
from onetrunk.eval.budget import Cost
from onetrunk.eval.margins import Estimate
from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import number, spaced
from onetrunk.report.charts import AxisRange, Level, Mark, PlacedPoint, ScatterPlot, scatter_of_runs
from onetrunk.report.columns import Column, Score, unpaired_difference
from onetrunk.report.findings import Findings
from onetrunk.report.floors import PHRASES
from onetrunk.report.formatting import signed
from onetrunk.report.verdict import Result

MAX_NAME = 20  # letters of a name in the chart
FAR = 0.6  # heights of the chart; levels further above are left out
LEAST_RATIO = 2.0  # of the largest to the smallest size on the axis
# numbers times a power of ten that ticks may have; the first ones of which two are in the range
DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
ROOM = 0.12  # share of the range that is left free on each side


@dataclass(frozen=True)
class Entry:
    """A run, or predictions without training.

    Args:
        column: The run; None for predictions without training.
        mean: The mean over tasks, if all of them are known.
        scores: The test scores by task.
        results: The results against the baseline by task.
    """

    name: str
    column: Column | None
    cost: Cost | None
    mean: Estimate | None
    scores: Mapping[Key, Score]
    results: Mapping[Key, Result]
    chosen: bool = False
    baseline: bool = False


@dataclass(frozen=True)
class ErrorBySize:
    """The runs from the smallest to the largest, with their chart.

    Args:
        entries: Predictions without training first.
        keys: The tasks of the means.
        relative: Whether the means are losses relative to the baseline.
        left_out: Levels that are too far above to be in the chart.
    """

    entries: tuple[Entry, ...]
    keys: tuple[Key, ...]
    relative: bool
    plot: ScatterPlot | None
    left_out: tuple[tuple[str, str], ...] = ()


def error_by_size(findings: Findings) -> ErrorBySize | None:
    """Return all runs by size; None if there is only one."""
    columns = findings.all_columns
    if len(columns) < 2:
        return None
    first = columns[0].scores
    keys = tuple(key for key in first if all(key in column.scores for column in columns))
    base = findings.baseline
    percent = all(first[key].row.unit == "%" for key in keys)
    base_values = [base.scores[key].estimate.value for key in keys] if base else []
    relative = bool(base and not percent and min(base_values, default=0) > 0)
    mean = _relative_loss(base) if base and relative else _error if percent else None
    entries = [_entry(findings, column, keys, mean) for column in columns]
    entries.sort(key=lambda each: each.cost.bytes if each.cost else 0)
    floors = [_floor(name, scores, keys, mean) for name, scores in findings.floors.items()]
    plot, left_out = _plot(entries, floors, relative)
    return ErrorBySize((*floors, *entries), keys, relative, plot, left_out)


Mean = Callable[[Column | None, Key, Score], Estimate]


def _error(_: Column | None, __: Key, score: Score) -> Estimate:
    """Return a score in percent as an error."""
    e = score.estimate
    if score.row.better == "lower":
        return e
    low, high = (None if end is None else 100 - end for end in (e.high, e.low))
    return Estimate(100 - e.value, low, high)


def _relative_loss(baseline: Column) -> Mean:
    """Return the function that gives a score's loss relative to this baseline, in percent."""

    def loss(column: Column | None, key: Key, score: Score) -> Estimate:
        if column is baseline:
            return Estimate(0.0)
        other = baseline.scores[key]
        known = (
            [c.difference for c in column.comparisons if (c.domain, c.task) == key]
            if column
            else []
        )
        d = known[0] if known else unpaired_difference(score, other)
        factor = 100 / other.estimate.value
        low, high = (None if end is None else end * factor for end in (d.low, d.high))
        return Estimate(d.value * factor, low, high)

    return loss


def mean_over_domains(estimates: Mapping[Key, Estimate]) -> Estimate:
    """Return the mean of independent domains; without an interval if one has none."""
    count = len(estimates)
    value = math.fsum(e.value for e in estimates.values()) / count
    below: dict[str, float] = {}
    above: dict[str, float] = {}
    for (domain, _), e in estimates.items():
        if e.low is None or e.high is None:
            return Estimate(value)
        below[domain] = below.get(domain, 0.0) + e.value - e.low
        above[domain] = above.get(domain, 0.0) + e.high - e.value
    low, high = (math.hypot(*side.values()) / count for side in (below, above))
    return Estimate(value, value - low, value + high)


def _mean_of(
    column: Column | None, scores: Mapping[Key, Score], keys: Sequence[Key], mean: Mean | None
) -> Estimate | None:
    if mean is None or not keys or not all(key in scores for key in keys):
        return None
    return mean_over_domains({key: mean(column, key, scores[key]) for key in keys})


def _entry(findings: Findings, column: Column, keys: Sequence[Key], mean: Mean | None) -> Entry:
    return Entry(
        findings.title(column),
        column,
        column.cost,
        _mean_of(column, column.scores, keys, mean),
        column.scores,
        {(c.domain, c.task): c.result for c in column.comparisons},
        chosen=findings.is_chosen(column),
        baseline=column is findings.baseline,
    )


def _floor(name: str, scores: Mapping[Key, Score], keys: Sequence[Key], mean: Mean | None) -> Entry:
    words = PHRASES[name].removeprefix("a ").removeprefix("the ")
    return Entry(words, None, None, _mean_of(None, scores, keys, mean), scores, {})


# -- the chart


def _plot(
    runs: Sequence[Entry], floors: Sequence[Entry], relative: bool
) -> tuple[ScatterPlot | None, tuple[tuple[str, str], ...]]:
    """Draw runs with a size as points, and those without one and floors as levels."""

    def shown(value: float) -> str:
        return f"{signed(value, '%') if relative else number(value, '%')} %"

    placed = [(e, e.cost.bytes, e.mean) for e in runs if e.cost and e.cost.bytes and e.mean]
    levels = [
        (e.name, e.mean) for e in (*runs, *floors) if e.mean and not (e.cost and e.cost.bytes)
    ]
    if len(placed) + sum(e.mean is not None and not e.cost for e in runs) < 2 or not placed:
        return None, ()
    ends = [v for _, _, m in placed for v in (m.value, m.low, m.high) if v is not None]
    limit = max(ends) + FAR * (max(ends) - min(ends))
    near = [(name, m.value) for name, m in levels if m.value <= limit]
    far = tuple((name, shown(m.value)) for name, m in levels if m.value > limit)
    values = [*ends, *(value for _, value in near)]
    points = [_point(e, size, mean) for e, size, mean in placed]
    label = "; ".join(f"{e.name}: {shown(m.value)}, {scaled(size, 'B')}" for e, size, m in placed)
    x = _sizes([size for _, size, _ in placed])
    y = AxisRange(*_with_room(min(values), max(values)), text=shown_tick(relative))
    return scatter_of_runs(points, [Level(*each) for each in near], x, y, label), far


def _point(entry: Entry, size: int, mean: Estimate) -> PlacedPoint:
    short = entry.name if len(entry.name) <= MAX_NAME else f"{entry.name[: MAX_NAME - 1]}…"
    shape = "chosen" if entry.chosen else "baseline" if entry.baseline else "run"
    css = entry.column.css if entry.column else ""
    interval = None if mean.low is None or mean.high is None else (mean.low, mean.high)
    mark = Mark(shape, css)
    return PlacedPoint(short, mark, math.log10(size), mean.value, interval, entry.chosen)


def shown_tick(relative: bool) -> Callable[[float], str]:
    """Return how numbers on the axis of errors are written."""

    def text(value: float) -> str:
        sign = "−" if value < 0 else "+" if value > 0 and relative else ""
        return f"{sign}{abs(value):g}{spaced('%')}"

    return text


def _with_room(low: float, high: float) -> tuple[float, float]:
    room = ROOM * (high - low) or max(0.1 * abs(high), 1e-3)
    return low - room, high + room


def _sizes(sizes: Sequence[int]) -> AxisRange:
    """Return the range of a logarithmic axis of bytes, with ticks at round numbers."""
    low, high = math.log10(min(sizes)), math.log10(max(sizes))
    missing = max(0.0, math.log10(LEAST_RATIO) - (high - low)) / 2
    low, high = _with_room(low - missing, high + missing)
    inside: list[float] = []
    for digits in DIGITS:
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [math.log10(digit) + power for power in powers for digit in digits]
        inside = [at for at in found if low <= at <= high]
        if len(inside) > 1:
            break
    return AxisRange(low, high, lambda at: short_bytes(10**at), tuple(inside))


def short_bytes(size: float) -> str:
    """Return the text of a tick: `5 MB`."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor * (1 - 1e-9):
            return f"{size / factor:.3g}\u00a0{unit}"
    return f"{size:.3g}\u00a0B"
