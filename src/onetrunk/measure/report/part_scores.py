"""The page's first part: scores beside the baseline's, all metrics, summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onetrunk.measure.outcomes import Key
from onetrunk.measure.report.charts import Scale, scale_of, strip, strip_axis
from onetrunk.measure.report.findings import Column, Findings
from onetrunk.measure.report.html import Html, el
from onetrunk.measure.report.scores import Score
from onetrunk.measure.report.verdict import RULES, Compared, Estimate
from onetrunk.measure.report.words import (
    difference,
    figure,
    head,
    heads,
    note,
    reading,
    row_head,
    scroll,
    section,
    signed,
    title,
    value,
)
from onetrunk.measure.table import number, spaced

FURTHEST = 20  # times as many test images as there are: beyond that nobody will collect them
NAMES = {
    "error": "error",
    "map_error": "1 − mAP",
    "nrmse": "RMSE ÷ deviation",
    "miou": "mean IoU",
    "abs": "absolute error",
    "mean": "mean angle",
    "recall_at_1": "recall@1",
    "balanced_error": "balanced error",
    "ece": "calibration error",
    "pixel_accuracy": "pixels right",
    "rel": "relative error",
    "median": "median angle",
    "within_11": "within 11.25°",
    "within_22": "within 22.5°",
    "within_30": "within 30°",
    "rmse": "RMSE",
    "mae": "mean absolute error",
}


def scores_part(findings: Findings) -> Html | None:
    """Scores by domain, or None where no run is finished."""
    if not any(column.scores for column in findings.columns):
        return None
    against = findings.baseline is not None and bool(findings.judged.compared)
    table = _against(findings) if against else _plain(findings)
    return section(
        "scores",
        "Scores, domain by domain",
        figure(table, _caption(findings, against), "figure.whole"),
        _rules(findings),
        _summaries(findings),
        _all_metrics(findings),
    )


def _rules(findings: Findings) -> Html | None:
    """By which rules the verdict came about."""
    if findings.baseline is None:
        return None
    return el(
        "div.rules",
        el("h3", "The rules of the verdict"),
        el("ol.small.note", [el("li", rule) for rule in RULES]),
    )


def _caption(findings: Findings, against: bool) -> str:
    said = (
        "Test images only; under each score its 95 % interval (for shares of images Wilson's, else "
        "a bootstrap over images). "
    )
    if not against:
        return said + "The dot is the score, the line its interval."
    judged, base = (
        title(c, findings) for c in (findings.judged, findings.baseline or findings.judged)
    )
    return said + (
        f"Difference: error of {judged} minus error of {base}, both as numbers where lower is "
        "better, so left of the line is better; the line is its 95 % interval, the shaded band is "
        "the margin that a domain may lose."
    )


def _groups(column: Column) -> list[tuple[str, list[tuple[Key, Score]]]]:
    """A column's tasks by metric and unit, the usual one first."""
    found: dict[str, list[tuple[Key, Score]]] = {}
    for key, score in column.scores.items():
        found.setdefault(f"{score.row.metric} {score.row.unit}", []).append((key, score))
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def metric_words(metric: str, unit: str, better: str = "lower") -> str:
    """`error, %`"""
    words = NAMES.get(metric, metric)
    words += f", {unit}" if unit else ""
    return words + (" (higher is better)" if better == "higher" else "")


def _name(key: Key, column: Column) -> Html:
    """The domain, and its task where that says more."""
    several = sum(domain == key[0] for domain, _ in column.scores) > 1
    return row_head(key[0], key[1] if several or key[1] != column.scores[key].row.kind else "")


def _against(findings: Findings) -> Html:
    judged, base = findings.judged, findings.baseline
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
    compared = {(c.domain, c.task): c for c in judged.compared}
    bodies = []
    groups = _groups(judged)
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
            rows.append(el("tr", _name(key, judged), mark, cells, rest, count))
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
    spread = findings.judged.mean_difference
    if findings.baseline is not None:
        place = findings.verdict.judged
        rest[1] = difference(spread or Estimate(means[place] - means[-1]), "%")
    return el("tfoot", el("tr", label, cells, rest))


def common(columns: Sequence[Column]) -> list[Key]:
    """Tasks that every column has an error in percent of."""
    first = columns[0].scores
    return [
        key
        for key, score in first.items()
        if score.row.kind == "classify" and all(key in column.scores for column in columns)
    ]


def mean_error(column: Column, keys: Sequence[Key]) -> float:
    """In percent, over these tasks."""
    return math.fsum(column.scores[key].estimate.value for key in keys) / len(keys)


def _plain(findings: Findings) -> Html:
    """Without a baseline: each score with its interval."""
    judged = findings.judged
    titles = [head(column, findings) for column in findings.columns]
    top = el("tr", heads("domain", ">test images"), titles, heads("with its interval"))
    bodies = []
    groups = _groups(judged)
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
        axis = strip_axis(scale, first.unit)
        rows = [el("tr", el("th.unit", words, attributes=span), el("td.wide", axis))]
        for key, score in members:
            e = score.estimate
            said = f"{key[0]}: {number(e.value, first.unit)}{spaced(first.unit)}"
            drawn = strip(scale, e.value, e.low, e.high, None, "one", said)
            cells = [_cell(column, key) for column in findings.columns]
            count = el("td.num", f"{score.row.count:,}")
            rows.append(el("tr", _name(key, judged), count, cells, el("td.wide", drawn)))
        bodies.append(el("tbody", rows))
    foot = None
    keys = common(findings.columns)
    if len(keys) > 1:
        span = {"scope": "row", "colspan": 2}
        label = el("th", f"mean error, {len(keys)} domains", attributes=span)
        means = [number(mean_error(column, keys), "%") + " %" for column in findings.columns]
        foot = el("tfoot", el("tr", label, [el("td.num", mean) for mean in means], el("td")))
    return scroll(el("table.full", el("thead", top), bodies, foot), "scores by domain")


def _all_metrics(findings: Findings) -> Html | None:
    """Everything else that was scored."""
    columns = [*findings.columns, *([findings.baseline] if findings.baseline else [])]
    rows = []
    for key, score in findings.judged.scores.items():
        for metric, unit, _ in score.also:
            cells = []
            for column in columns:
                other = column.scores.get(key)
                found = [v for m, _, v in other.also if m == metric] if other else []
                cells.append(el("td.num", number(found[0], unit) if found else "–"))
            name = _name(key, findings.judged) if metric == score.also[0][0] else el("td")
            rows.append(el("tr", name, el("td", metric_words(metric, unit)), cells))
    if not rows:
        return None
    top = el("tr", heads("domain", "metric"), [head(column, findings) for column in columns])
    table = el("table", el("thead", top), el("tbody", rows))
    return el("div", el("h3", "Other metrics"), scroll(table, "other metrics"))


def _summaries(findings: Findings) -> Html | None:
    """Decathlon score and Δ, by column."""
    if findings.baseline is None or not any(c.decathlon or c.delta for c in findings.columns):
        return None
    rows = []
    for column in findings.columns:
        cells = [
            _summary(column.decathlon, "{:,.0f}"),
            _summary(column.delta, "{:+.2f} %"),
        ]
        seeds = ", ".join(map(str, column.seeds))
        name = row_head(title(column, findings), column.what)
        rows.append(el("tr", name, cells, el("td.num", seeds)))
    domains = len(common([findings.judged, findings.baseline]))
    top = el("tr", heads("", ">decathlon score", ">Δ", ">seeds"))
    table = el("table", el("thead", top), el("tbody", rows))
    return el(
        "div",
        el("h3", "In one number"),
        scroll(table, "summary scores"),
        note(
            f"Decathlon score (Rebuffi et al. 2017): the baseline has 250 for each of the "
            f"{domains} domains that both classify, {250 * domains:,} in all, a network without "
            "errors four times as much. Δ (Maninis et al. 2019): the mean relative gain over the "
            "baseline's tasks; below 0 is a loss. With several seeds: their mean and range."
        ),
    )


def _summary(values: Sequence[float], how: str) -> Html:
    if not values:
        return el("td.num", "–")
    shown = how.format(sum(values) / len(values)).replace("-", "−")
    small = None
    if len(values) > 1:
        low, high = (how.format(v).replace("-", "−") for v in (min(values), max(values)))
        small = el("small", f"{low} to {high}")
    return el("td.num", shown, small)
