"""The page's first part: scores beside the baseline's, all metrics, summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import number, spaced
from onetrunk.report.charts import Scale, scale_of, strip, strip_axis
from onetrunk.report.findings import Column, Findings
from onetrunk.report.html import Html, el
from onetrunk.report.part_summary import (
    common,
    mean_error,
    metric_words,
    name_of,
    other_metrics,
    rules,
    summaries,
)
from onetrunk.report.scores import Score
from onetrunk.report.verdict import Compared, Estimate
from onetrunk.report.words import (
    difference,
    figure,
    head,
    heads,
    reading,
    scroll,
    section,
    signed,
    title,
    value,
)

FURTHEST = 20  # times as many test images as there are: beyond that nobody will collect them


def scores_part(findings: Findings) -> Html | None:
    """Scores by domain, or None where no run is finished."""
    if not any(column.scores for column in findings.columns):
        return None
    against = findings.baseline is not None and bool(findings.evaluated.compared)
    table = _against(findings) if against else _plain(findings)
    return section(
        "scores",
        "Scores, domain by domain",
        figure(table, _caption(findings, against), "figure.whole"),
        rules(findings),
        summaries(findings),
        other_metrics(findings),
    )


def _caption(findings: Findings, against: bool) -> str:
    said = (
        "Test images only; under each score its 95 % interval (for shares of images Wilson's, else "
        "a bootstrap over images). "
    )
    if not against:
        return said + "The dot is the score, the line its interval."
    evaluated, base = (
        title(c, findings) for c in (findings.evaluated, findings.baseline or findings.evaluated)
    )
    return said + (
        f"Difference: error of {evaluated} minus error of {base}, both as numbers where lower is "
        "better, so left of the line is better; the line is its 95 % interval, the shaded band is "
        "the margin that a domain may lose."
    )


def _groups(column: Column) -> list[tuple[str, list[tuple[Key, Score]]]]:
    """A column's tasks by metric and unit, the usual one first."""
    found: dict[str, list[tuple[Key, Score]]] = {}
    for key, score in column.scores.items():
        found.setdefault(f"{score.row.metric} {score.row.unit}", []).append((key, score))
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def _against(findings: Findings) -> Html:
    evaluated, base = findings.evaluated, findings.baseline
    assert base is not None
    columns = [*findings.columns, base]
    titles = [head(column, findings) for column in columns]
    top = el(
        "tr",
        heads("domain", "reading"),
        titles,
        el("th.over", "difference", attributes={"scope": "col"}),
        heads(">", ">test images"),
    )
    compared = {(c.domain, c.task): c for c in evaluated.compared}
    bodies = []
    groups = _groups(evaluated)
    for _, members in groups:
        rows = []
        known = [compared[key] for key, _ in members if key in compared]
        scale = scale_of([v for c in known for v in _ends(c)])
        first = members[0][1].row
        words = metric_words(first.metric, first.unit, first.better)
        axis = strip_axis(scale, first.unit)
        label = el("th.unit", words, attributes={"colspan": 2 + len(columns), "scope": "colgroup"})
        rows.append(el("tr", label, el("td.wide", axis), el("td"), el("td")))
        for key, score in members:
            cells = [_cell(column, key) for column in columns]
            mark, *rest = _compared(compared.get(key), scale, score)
            count = el("td.num", f"{score.row.count:,}")
            rows.append(el("tr", name_of(key, evaluated), mark, cells, rest, count))
        bodies.append(el("tbody", rows))
    table = el("table.full", el("thead", top), bodies, _foot(findings, columns))
    return scroll(table, "scores by domain")


def _ends(compared: Compared) -> list[float]:
    d = compared.difference
    return [
        v for v in (d.value, d.low, d.high, min(compared.margin, 3 * abs(d.value))) if v is not None
    ]


def _cell(column: Column, key: Key) -> Html:
    score = column.scores.get(key)
    return value(score.estimate, score.row.unit) if score else el("td.num", "–")


def _compared(compared: Compared | None, scale: Scale, score: Score) -> list[Html]:
    if compared is None:
        return [el("td", el("small", "not in the baseline")), el("td.wide"), el("td")]
    d, unit = compared.difference, score.row.unit
    shown = signed(d.value, unit, compared.alone.value) + spaced(unit)
    said = f"{compared.domain}: {shown}, {compared.reading}"
    drawn = strip(scale, d.value, d.low, d.high, compared.margin, compared.reading, said)
    needed = images_needed(compared, score.row.count)
    hint = el("small", f"≈ {needed:,} images would tell") if needed else None
    return [
        el("td", reading(compared.reading), hint),
        el("td.wide", drawn),
        difference(d, unit, compared.alone.value),
    ]


def images_needed(compared: Compared, count: int) -> int | None:
    """So many test images would decide, if the difference stayed: intervals shrink as 1/√n."""
    d = compared.difference
    if compared.reading != "open" or d.low is None or d.high is None:
        return None
    apart = abs(compared.margin - d.value)
    half = (d.high - d.low) / 2
    if not apart or half <= apart or (half / apart) ** 2 > FURTHEST:
        return None
    needed = count * (half / apart) ** 2
    step = int(10 ** max(0, len(str(int(needed))) - 2))
    return math.ceil(needed / step) * step


def _foot(findings: Findings, columns: Sequence[Column]) -> Html | None:
    """The mean over the domains that every column classifies."""
    keys = common(columns)
    if len(keys) < 2:
        return None
    means = [mean_error(column, keys) for column in columns]
    cells = [el("td.num", f"{number(mean, '%')} %") for mean in means]
    label = el("th", f"mean error, {len(keys)} domains", attributes={"scope": "row", "colspan": 2})
    rest = [el("td"), el("td"), el("td")]
    spread = findings.evaluated.mean_difference
    if findings.baseline is not None:
        place = findings.verdict.evaluated
        rest[1] = difference(spread or Estimate(means[place] - means[-1]), "%")
    return el("tfoot", el("tr", label, cells, rest))


def _plain(findings: Findings) -> Html:
    """Without a baseline: each score with its interval."""
    evaluated = findings.evaluated
    titles = [head(column, findings) for column in findings.columns]
    top = el("tr", heads("domain", ">test images"), titles, heads("with its interval"))
    bodies = []
    groups = _groups(evaluated)
    for _, members in groups:
        first = members[0][1].row
        values = [
            v
            for _, s in members
            for v in (s.estimate.value, s.estimate.low, s.estimate.high)
            if v is not None
        ]
        scale = Scale(0.0, 1.05 * max([*values, 1e-9]))
        words = metric_words(first.metric, first.unit, first.better)
        span = {"colspan": 2 + len(titles), "scope": "colgroup"}
        axis = strip_axis(scale, first.unit, signs=False)
        rows = [el("tr", el("th.unit", words, attributes=span), el("td.wide", axis))]
        for key, score in members:
            e = score.estimate
            said = f"{key[0]}: {number(e.value, first.unit)}{spaced(first.unit)}"
            drawn = strip(scale, e.value, e.low, e.high, None, "one", said)
            cells = [_cell(column, key) for column in findings.columns]
            count = el("td.num", f"{score.row.count:,}")
            rows.append(el("tr", name_of(key, evaluated), count, cells, el("td.wide", drawn)))
        bodies.append(el("tbody", rows))
    foot = None
    keys = common(findings.columns)
    if len(keys) > 1:
        span = {"scope": "row", "colspan": 2}
        label = el("th", f"mean error, {len(keys)} domains", attributes=span)
        means = [number(mean_error(column, keys), "%") + " %" for column in findings.columns]
        foot = el("tfoot", el("tr", label, [el("td.num", mean) for mean in means], el("td")))
    return scroll(el("table.full", el("thead", top), bodies, foot), "scores by domain")
