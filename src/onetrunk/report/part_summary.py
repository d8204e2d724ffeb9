"""Beside the scores: by which rules they are read, all runs in few numbers, the other metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onetrunk.eval.outcomes import Key
from onetrunk.eval.table import number
from onetrunk.report.findings import Column, Findings
from onetrunk.report.html import Html, el
from onetrunk.report.verdict import ORDER, RULES, by_domain
from onetrunk.report.words import (
    READINGS,
    difference,
    head,
    heads,
    note,
    row_head,
    scroll,
    title,
)

NAMES = {
    "error": "error",
    "map_error": "1 − mAP",
    "nrmse": "RMSE ÷ standard deviation",
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


def rules(findings: Findings) -> Html | None:
    """By which rules the verdict came about."""
    if findings.baseline is None:
        return None
    return el(
        "div.rules",
        el("h3", "The rules of the verdict"),
        el("ol.small.note", [el("li", rule) for rule in RULES]),
    )


def metric_words(metric: str, unit: str, better: str = "lower") -> str:
    """`error, %`"""
    words = NAMES.get(metric, metric)
    words += f", {unit}" if unit else ""
    return words + (" (higher is better)" if better == "higher" else "")


def name_of(key: Key, column: Column) -> Html:
    """The domain, and its task where that says more."""
    several = sum(domain == key[0] for domain, _ in column.scores) > 1
    return row_head(key[0], key[1] if several or key[1] != column.scores[key].row.kind else "")


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


def other_metrics(findings: Findings) -> Html | None:
    """Everything else that was scored."""
    columns = [*findings.columns, *([findings.baseline] if findings.baseline else [])]
    rows = []
    for key, score in findings.evaluated.scores.items():
        for metric, unit, _ in score.also:
            cells = []
            for column in columns:
                other = column.scores.get(key)
                found = [v for m, _, v in other.also if m == metric] if other else []
                cells.append(el("td.num", number(found[0], unit) if found else "–"))
            name = name_of(key, findings.evaluated) if metric == score.also[0][0] else el("td")
            rows.append(el("tr", name, el("td", metric_words(metric, unit)), cells))
    if not rows:
        return None
    top = el("tr", heads("domain", "metric"), [head(column, findings) for column in columns])
    table = el("table", el("thead", top), el("tbody", rows))
    return el("div", el("h3", "Other metrics"), scroll(table, "other metrics"))


def summaries(findings: Findings) -> Html | None:
    """All columns against the baseline: readings, mean difference, decathlon score, Δ."""
    base = findings.baseline
    if base is None or not any(column.compared for column in findings.columns):
        return None
    rows = []
    for column in findings.columns:
        readings = list(by_domain(column.compared).values())
        counted = [f"{readings.count(r)} {READINGS[r]}" for r in ORDER if r in readings]
        gap = column.mean_difference
        cells = [
            el("td", ", ".join(counted) or "–"),
            difference(gap, "%") if gap else el("td.num", "–"),
            _summary(column.decathlon, "{:,.0f}"),
            _summary(column.delta, "{:+.2f} %"),
            el("td.num", ", ".join(map(str, column.seeds))),
        ]
        rows.append(el("tr", row_head(title(column, findings), column.what), cells))
    domains = len(common([findings.evaluated, base]))
    names = ("domains, beside the baseline", ">mean difference", ">decathlon score", ">Δ", ">seeds")
    table = el("table", el("thead", el("tr", heads("", *names))), el("tbody", rows))
    return el(
        "div",
        el("h3", "In few numbers"),
        scroll(table, "summary scores"),
        note(
            "Mean difference: of the errors in percent over the domains, paired image by image. "
            f"Decathlon score (Rebuffi et al. 2017): the baseline has 250 for each of the {domains}"
            f" domains that both classify, {250 * domains:,} in all, a network without errors four "
            "times as much. Δ (Maninis et al. 2019): the mean relative gain over the baseline's "
            "tasks; below 0 is a loss. With several seeds: their mean and range."
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
