"""Rendering of findings as a self-contained page: no scripts, no external resources, all escaped.

The markup is in the templates; this module prepares the charts and tables that they show.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from onetrunk.data.splitting import SPLITS
from onetrunk.display import scaled
from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import number, spaced
from onetrunk.report import formatting
from onetrunk.report.charts import (
    HeatMap,
    LineChart,
    Mark,
    Scale,
    ScatterPlot,
    Series,
    Strip,
    StripAxis,
    heat_map,
    line_chart,
    mark_of,
    scale_of,
    scatter_plot,
    strip,
    strip_axis,
)
from onetrunk.report.columns import Column, Score, common_classify_keys
from onetrunk.report.curves import RunCurve, TaskCurves
from onetrunk.report.error_by_size import error_by_size
from onetrunk.report.findings import Findings
from onetrunk.report.floors import FEATURES, title_of
from onetrunk.report.map_examples import class_colour
from onetrunk.report.verdict import (
    RESULT_WORDS,
    RESULTS,
    RULES,
    Result,
    TaskComparison,
    results_by_domain,
)

GENERATOR = '<meta name="generator" content="onetrunk '  # how a report is recognized
MAX_IMAGES_FACTOR = 20  # larger multiples of the number of test images are not suggested
MAX_COLUMNS = 4  # of runs in the table of scores; of more, only those that are compared are shown
MAX_CLASSES = 40  # in the legend of a class map
THUMBNAIL = 84  # pixels on the page


def page(findings: Findings) -> str:
    """Render the page."""
    template = environment().get_template("page.html.j2")
    against_baseline = findings.baseline is not None and bool(findings.evaluated.comparisons)
    return template.render(
        findings=findings,
        against_baseline=against_baseline,
        floors=bool(findings.floors),
        floor_error=floor_error(findings),
        no_features=no_features(findings),
        runs=error_by_size(findings),
        score_groups=score_groups(findings, against_baseline),
        result_counts=[result_counts(column) for column in findings.columns],
        panels={kind: panels(findings, kind) for kind in ("val", "loss")},
        selections=selections(findings),
        latency_ratios=latency_ratios(findings),
        scatter=domain_map(findings),
        similarity_maps=similarity_maps(findings),
        gradient_map=gradient_map(findings),
    )


@cache
def environment() -> Environment:
    """Return the environment of the templates, which escapes everything and refuses typos."""
    jinja = Environment(
        loader=PackageLoader("onetrunk.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "measure": formatting.measure,
        "signed": formatting.signed,
        "minus": formatting.minus,
        "times": formatting.times,
        "ms": formatting.milliseconds,
        "pct": formatting.percent,
        "scaled": scaled,
        "flat": formatting.flat,
        "difference_unit": formatting.difference_unit,
        "seeds": formatting.seeds,
    }
    jinja.globals |= {
        "GENERATOR": GENERATOR,
        "common_classify_keys": common_classify_keys,
        "class_colour": class_colour,
        "mark_of": mark_of,
        "metric_words": formatting.metric_words,
        "number": number,
        "spaced": spaced,
        "MAX_CLASSES": MAX_CLASSES,
        "MAX_COLUMNS": MAX_COLUMNS,
        "RESULT_WORDS": RESULT_WORDS,
        "RULES": RULES,
        "SPLITS": SPLITS,
        "THUMBNAIL": THUMBNAIL,
    }
    return jinja


# -- scores


@dataclass(frozen=True)
class ShownFloor:
    """A score without training, beside those of the networks."""

    title: str
    score: Score


@dataclass(frozen=True)
class ScoreRow:
    """One task in the table of scores."""

    key: Key
    task: str  # shown below the domain; "" for a domain's only task
    score: Score
    comparison: TaskComparison | None
    floors: tuple[ShownFloor, ...]
    strip: Strip | None
    images_needed: int | None


@dataclass(frozen=True)
class ScoreGroup:
    """The tasks with one metric, which share an axis."""

    heading: str
    unit: str
    axis: StripAxis
    rows: tuple[ScoreRow, ...]


def score_groups(findings: Findings, against_baseline: bool) -> list[ScoreGroup]:
    """Group the evaluated column's tasks by metric and unit, the most frequent first."""
    column = findings.evaluated
    floors = {key: floors_beside(findings, key) for key in column.scores}
    groups: dict[tuple[str, str], list[tuple[Key, Score]]] = {}
    for key, score in column.scores.items():
        groups.setdefault((score.row.metric, score.row.unit), []).append((key, score))
    ordered = sorted(groups.values(), key=len, reverse=True)
    if not against_baseline:
        return [_plain_group(column, members, floors) for members in ordered]
    weak = findings.verdict.weak
    return [_compared_group(column, members, floors, weak) for members in ordered]


def floors_beside(findings: Findings, key: Key) -> tuple[ShownFloor, ...]:
    """Return the floors of a task."""
    return tuple(
        ShownFloor(title_of(name, scores[key].row.kind), scores[key])
        for name, scores in findings.floors.items()
        if key in scores
    )


def floor_error(findings: Findings) -> float | None:
    """Return the mean over the classified domains of the lowest floor's error, if all have one."""
    sides = [findings.evaluated, *([findings.baseline] if findings.baseline else [])]
    lowest = [
        min((floor.score.error for floor in floors_beside(findings, key)), default=None)
        for key in common_classify_keys(sides)
    ]
    known = [error for error in lowest if error is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(lowest) else None


def no_features(findings: Findings) -> str:
    """Return why there is no floor of frozen features."""
    if any(FEATURES in part for part in map(str.lower, findings.missing)):
        return "see the end of this page"
    return "because the trunk did not start from pretrained weights"


def _compared_group(
    column: Column,
    members: Sequence[tuple[Key, Score]],
    floors: Mapping[Key, tuple[ShownFloor, ...]],
    weak: Sequence[str],
) -> ScoreGroup:
    """Draw differences from the baseline."""
    comparisons = {(c.domain, c.task): c for c in column.comparisons}
    scale = scale_of(
        [v for key, _ in members if (c := comparisons.get(key)) for v in _shown_values(c)]
    )
    unit = members[0][1].row.unit
    rows = []
    for key, score in members:
        comparison, drawn, needed = comparisons.get(key), None, None
        if comparison is not None:
            d = comparison.difference
            shown = formatting.signed(d.value, unit, comparison.baseline.value)
            shown += spaced(formatting.difference_unit(unit))
            label = f"{key[0]}: {shown}, {RESULT_WORDS[comparison.result]}"
            css = "weak" if key[0] in weak else comparison.result
            drawn = strip(scale, d.value, d.low, d.high, comparison.margin, css, label)
            needed = images_needed(comparison, score.row.count)
        task = column.task_label(key)
        rows.append(ScoreRow(key, task, score, comparison, floors[key], drawn, needed))
    return _group(members, strip_axis(scale, formatting.difference_unit(unit)), rows)


def _plain_group(
    column: Column,
    members: Sequence[tuple[Key, Score]],
    floors: Mapping[Key, tuple[ShownFloor, ...]],
) -> ScoreGroup:
    """Draw scores with their intervals."""
    estimates = [score.estimate for _, score in members]
    values = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    scale = Scale(0.0, 1.05 * max([*values, 1e-9]))
    unit = members[0][1].row.unit
    rows = []
    for key, score in members:
        e = score.estimate
        label = f"{key[0]}: {formatting.measure(e.value, unit)}"
        drawn = strip(scale, e.value, e.low, e.high, None, "one", label)
        rows.append(ScoreRow(key, column.task_label(key), score, None, floors[key], drawn, None))
    return _group(members, strip_axis(scale, unit, signs=False), rows)


def _group(
    members: Sequence[tuple[Key, Score]], axis: StripAxis, rows: Sequence[ScoreRow]
) -> ScoreGroup:
    first = members[0][1].row
    heading = formatting.metric_words(first.metric, first.unit, first.better)
    return ScoreGroup(heading, first.unit, axis, tuple(rows))


def _shown_values(comparison: TaskComparison) -> list[float]:
    d = comparison.difference
    margin = min(comparison.margin, 3 * abs(d.value))
    return [value for value in (d.value, d.low, d.high, margin) if value is not None]


def images_needed(comparison: TaskComparison, count: int) -> int | None:
    """Return how many test images would decide at the same difference: intervals ∝ 1/√n."""
    d = comparison.difference
    if comparison.result != "undecided" or d.low is None or d.high is None:
        return None
    distance = abs(comparison.margin - d.value)
    half = (d.high - d.low) / 2
    if not distance or half <= distance or (half / distance) ** 2 > MAX_IMAGES_FACTOR:
        return None
    needed = count * (half / distance) ** 2
    step = int(10 ** max(0, len(str(int(needed))) - 2))
    return math.ceil(needed / step) * step


def result_counts(column: Column) -> list[tuple[int, Result]]:
    """Count a column's domains by their result, from best to worst."""
    results = list(results_by_domain(column.comparisons).values())
    return [(results.count(result), result) for result in RESULTS if result in results]


# -- training


@dataclass(frozen=True)
class Panel:
    """One task's chart."""

    title: str
    metric: str
    chart: LineChart


def panels(findings: Findings, kind: str) -> list[Panel]:
    """Return a chart per task of the validation error (`val`) or of the training loss (`loss`)."""
    charts = []
    for task in findings.curves:
        metric = task.metric if kind == "val" else None
        series: list[Series] = []
        columns: set[int] = set()
        for run in task.runs:
            column = findings.column(run.column)
            css = f"{column.css} more" if run.column in columns else column.css  # further seeds
            columns.add(run.column)
            points = run.val if kind == "val" else run.loss
            selected = run.selected if kind == "val" else None
            series.append(Series(column.name, css, points, selected))
        drawn = [each for each in series if each.points]
        if not drawn:
            continue
        words = formatting.metric_words(metric.name, metric.unit) if metric else ""
        if metric and metric.better == "higher":
            words = f"100 − {words}"
        name = "loss" if kind == "loss" else "validation error"
        label = f"{name} of {task.title} by step: {'; '.join(map(_describe, drawn))}"
        charts.append(Panel(task.title, words, line_chart(series, label)))
    return charts


def _describe(series: Series) -> str:
    (first, start), (last, end) = series.points[0], series.points[-1]
    return f"{series.label} from {start:.3g} at step {first:g} to {end:.3g} at {last:g}"


def selections(findings: Findings) -> list[tuple[TaskCurves, RunCurve]]:
    """Return the evaluated column's curves with a selected checkpoint."""
    return [
        (task, run)
        for task in findings.curves
        for run in task.runs
        if run.column == findings.verdict.evaluated
        and task.metric is not None
        and run.selected_error is not None
    ]


# -- latency


@dataclass(frozen=True)
class LatencyRatios:
    """Latency of one image relative to a separate network: the median over domains."""

    universal: float
    folded: float | None  # None if the separate networks are the folded copies themselves


def latency_ratios(findings: Findings) -> LatencyRatios | None:
    """Return how long one image takes in the one network, and in its copy for one domain."""
    found = findings.measured.latency
    rows = [row for row in found.rows if row.domain and row.batch == 1] if found else []
    timed = [(r.universal, r.folded, r.separate or r.folded) for r in rows]
    complete = [(u, f, s) for u, f, s in timed if u and f and s]
    if not found or not complete:
        return None
    folded = statistics.median(f / s for _, f, s in complete) if found.trained else None
    return LatencyRatios(statistics.median(u / s for u, _, s in complete), folded)


# -- features and gradients


def domain_map(findings: Findings) -> tuple[ScatterPlot, list[tuple[Mark, str]]] | None:
    """Draw the map of the domains' features, with its legend."""
    found = findings.measured.feature_map
    if found is None:
        return None
    label = f"{len(found.xy)} images of {len(found.domains)} domains, placed by their features"
    plot = scatter_plot(found.xy, found.domain, found.domains, label)
    return plot, [(mark_of(i), name) for i, name in enumerate(found.domains)]


def similarity_maps(findings: Findings) -> list[HeatMap]:
    """Draw the similarity of the domains' features at each depth."""
    found = findings.measured.similarity
    if found is None:
        return []
    depths = zip(found.depths, found.cka, found.mean(), strict=True)
    return [
        heat_map(found.domains, matrix, None, f"{depth}: mean {mean:.2f}")
        for i, (depth, matrix, mean) in enumerate(depths)
        # pooling does not change features that were averaged already
        if i == 0 or not np.allclose(matrix, found.cka[i - 1], equal_nan=True)
    ]


def gradient_map(findings: Findings) -> HeatMap | None:
    """Draw the cosines between the domains' gradients."""
    found = findings.measured.gradient_agreement
    if found is None:
        return None
    return heat_map(found.domains, found.cosine, found.own.tolist(), "cosine of gradients")
