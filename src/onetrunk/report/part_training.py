"""The page's part on how the figures came about: splits, choice of weights, curves, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onetrunk.data.splitting import SPLITS
from onetrunk.eval.table import number, spaced
from onetrunk.report.charts import Curve, panel
from onetrunk.report.findings import Column, Findings
from onetrunk.report.html import Html, el
from onetrunk.report.part_summary import metric_words
from onetrunk.report.training import Course, Line
from onetrunk.report.words import (
    figure,
    heads,
    note,
    row_head,
    scroll,
    section,
    signed,
    title,
)


def data_part(findings: Findings) -> Html | None:
    """How images were divided."""
    if not findings.splits:
        return None
    rows = []
    for split in findings.splits:
        counts = [el("td.num", f"{split.counts.get(name, 0):,}") for name in SPLITS]
        bad = sum(split.bad.values())
        which = ", ".join(f"{n} {name}" for name, n in split.bad.items() if n)
        unread = el("td.num", f"{bad:,}", el("small", which) if bad else None)
        rows.append(el("tr", row_head(split.domain), counts, unread, el("td", split.how)))
    top = el("tr", heads("domain", ">train", ">val", ">test", ">unreadable", "how it was divided"))
    table = el("table.full", el("thead", top), el("tbody", rows))
    caption = (
        "Images that were read, by split. Unreadable ones were skipped and are counted here. "
        "Weights were chosen on val alone; test was looked at once, at the end."
    )
    return section("data", "Images", figure(scroll(table, "splits"), caption, "figure.whole"))


def training_part(findings: Findings) -> Html | None:
    """Curves, and which step was kept."""
    if not findings.courses:
        return None
    used = columns_of(findings)
    lines = [_legend(column, title(column, findings)) for column in used.values()]
    parts: list[Html | None] = [el("ul.legend", lines)]
    validated = [course for course in findings.courses if any(x.val for x in course.lines)]
    if validated:
        panels = [_panel(course, used, False) for course in validated]
        parts += [
            el("h3", "Validation error"),
            el("div.panels", panels),
            note(
                "By step, on validation images; where a score is better when higher, 100 − score. "
                "The ring is the step whose weights were kept; separate networks each have steps "
                "of their own. Thin lines are further seeds."
            ),
        ]
    learned = [course for course in findings.courses if any(x.loss for x in course.lines)]
    if learned:
        panels = [_panel(course, used, True) for course in learned]
        parts += [
            el("h3", "Training loss"),
            el("div.panels", panels),
            note("By step, the mean since the line before; a task's own loss, before weights."),
        ]
    return section("training", "Training", *parts, _chosen(findings))


def columns_of(findings: Findings) -> dict[int, Column]:
    """By the place that a line names; −1 is the baseline."""
    found = dict(enumerate(findings.columns))
    if findings.baseline is not None:
        found[-1] = findings.baseline
    return found


def _legend(column: Column, name: str) -> Html:
    ends = {"x1": 1, "y1": 5, "x2": 25, "y2": 5}
    line = el(
        "svg.line",
        el(f"line.curve.{column.css}", attributes=ends),
        attributes={"aria-hidden": "true"},
    )
    return el("li", line, name if name == column.name else f"{name} ({column.name})")


def _panel(course: Course, used: Mapping[int, Column], loss: bool) -> Html:
    curves = []
    seen: set[int] = set()
    for line in course.lines:
        points = line.loss if loss else line.val
        column = used[line.column]
        chosen = None if loss or line.chosen is None else float(line.chosen)
        css = f"{column.css}.more" if line.column in seen else column.css  # further seeds
        seen.add(line.column)
        curves.append(Curve(column.name, css, points, chosen))
    name = _unit(course)
    words = "" if loss or course.metric is None else _error_words(course)
    said = "; ".join(_said(curve) for curve in curves if curve.points)
    drawn = panel(curves, f"{'loss' if loss else 'validation error'} of {name} by step: {said}")
    return el("figure", el("h4", name, " ", el("small", words)), drawn)


def _unit(course: Course) -> str:
    if course.task == "classify":
        return course.domain
    return f"{course.domain}/{course.task}"


def _error_words(course: Course) -> str:
    metric = course.metric
    assert metric is not None
    words = metric_words(metric.name, metric.unit)
    return f"100 − {words}" if metric.better == "higher" else words


def _said(curve: Curve) -> str:
    first, last = curve.points[0], curve.points[-1]
    return f"{curve.label} from {first[1]:.3g} at step {first[0]:g} to {last[1]:.3g} at {last[0]:g}"


def _chosen(findings: Findings) -> Html | None:
    """The evaluated column's kept step, and what each task's own best would have been."""
    rows = []
    for course in findings.courses:
        for line in course.lines:
            if line.column == findings.verdict.evaluated and course.metric is not None:
                row = _choice(course, line)
                rows += [row] if row is not None else []
    if not rows:
        return None
    names = (">seed", ">kept step", ">error there", ">own best step", ">error there", ">given up")
    top = el("tr", heads("domain", *names))
    table = el("table.full", el("thead", top), el("tbody", rows))
    return el(
        "div",
        el("h3", "Which weights were kept"),
        figure(
            scroll(table, "kept weights"),
            "Validation errors. One step is kept for all domains of one network: the one with the "
            "lowest mean over domains. Beside it each domain's own best step, which it gave up.",
            "figure.whole",
        ),
    )


def _choice(course: Course, line: Line) -> Html | None:
    kept, best = line.at_chosen, line.best
    if kept is None or best is None or course.metric is None:
        return None
    unit = course.metric.unit

    def shown(error: float) -> str:
        return number(error, unit) + spaced(unit)

    cells = [
        str(line.seed),
        f"{line.chosen:,}",
        shown(kept),
        f"{best[0]:,.0f}",
        shown(best[1]),
        signed(kept - best[1], unit) + spaced(unit),
    ]
    return el("tr", row_head(_unit(course)), [el("td.num", cell) for cell in cells])


def recipe_part(findings: Findings) -> Html:
    """Everything that makes the figures again."""
    parts: list[Html] = []
    for name, text in findings.recipes:
        parts += [el("h3", name), el("pre", text.strip(), attributes={"tabindex": 0})]
    for name, environment in findings.environments:
        parts.append(el("h3", f"{name}: where it was trained"))
        parts.append(scroll(_environment(environment), "environment"))
    return section("recipe", "Recipe and environment", *parts)


def _environment(environment: Mapping[str, object]) -> Html:
    rows = [
        el("tr", row_head(key), el("td.mono", _flat(value))) for key, value in environment.items()
    ]
    return el("table", el("tbody", rows))


def _flat(value: object) -> str:
    """A value of environment.json on one line; digests are cut."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_flat(inner) for inner in value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text
