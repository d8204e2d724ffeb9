"""Numbers as the page writes them, and the frames that its parts share."""

from __future__ import annotations

import math

from onetrunk.eval.table import number, spaced
from onetrunk.report.findings import Column, Findings
from onetrunk.report.html import Html, Inside, el
from onetrunk.report.verdict import Estimate, Reading

READINGS: dict[Reading, str] = {
    "better": "better",
    "kept": "as good",
    "open": "not decided",
    "worse": "worse",
}


def value(estimate: Estimate, unit: str) -> Html:
    """A score, under it its interval and its seeds."""
    lines = [number(estimate.value, unit) + spaced(unit)]
    if estimate.low is not None and estimate.high is not None:
        lines.append(f"{number(estimate.low, unit)}–{number(estimate.high, unit)}")
    if len(estimate.seeds) > 1:
        low, high = (number(v, unit) for v in (min(estimate.seeds), max(estimate.seeds)))
        lines.append(f"{len(estimate.seeds)} seeds: {low}–{high}")
    return el("td.num", lines[0], [el("small", line) for line in lines[1:]])


def signed(number_of: float, unit: str, like: float = 0.0) -> str:
    """`+0.42` or `−0.42`, with as many decimals as a score `like` has; a zero has no sign."""
    text = number(abs(number_of), unit)
    if unit not in ("%", "°") and like:
        text = f"{abs(number_of):.{max(0, 3 - math.floor(math.log10(abs(like))))}f}"
    if not float(text):
        return text
    return f"{'+' if number_of > 0 else '−'}{text}"


def difference(estimate: Estimate, unit: str, like: float = 0.0) -> Html:
    """A difference with its sign, under it its interval; `like`: one of the two scores."""
    shown = signed(estimate.value, unit, like) + spaced(unit)
    if estimate.low is None or estimate.high is None:
        return el("td.num", shown, el("small", "interval not known"))
    ends = f"{signed(estimate.low, unit, like)} to {signed(estimate.high, unit, like)}"
    return el("td.num", shown, el("small", ends))


def times(one: float | None, other: float | None) -> str:
    """`0.14×`, or a dash where nothing can be divided."""
    if one is None or not other:
        return "–"
    return f"{one / other:.3g}×" if one / other < 10 else f"{one / other:.0f}×"


def milliseconds(taken: float | None) -> str:
    """`1.24 ms`"""
    return "–" if taken is None else f"{taken:.3g}" if taken < 1000 else f"{taken:.0f}"


def title(column: Column, findings: Findings) -> str:
    """What a column is called: by its part where there are two, by its name among more."""
    if len(findings.columns) == 1 and not column.separate and column is not findings.baseline:
        return "one network"
    if column is findings.baseline and column.separate:
        return "separate networks"
    return column.name


def head(column: Column, findings: Findings, css: str = "th.num") -> Html:
    """A column's head: what it is called, under it its run."""
    called = title(column, findings)
    small = el("small", column.name) if called != column.name else None
    if len(findings.columns) > 1 and column is findings.evaluated:
        small = el("small", "evaluated")
    return el(css, called, small, attributes={"scope": "col"})


def reading(found: Reading) -> Html:
    """The reading in words and colour."""
    return el(f"span.reading.{found}", READINGS[found])


def scroll(table: Html, label: str) -> Html:
    """A table that scrolls in a box of its own where it is wider than the page."""
    box = {"role": "region", "aria-label": label, "tabindex": 0}
    return el("div.scroll", table, attributes=box)


def figure(content: Inside, caption: Inside, css: str = "figure") -> Html:
    """A figure with what it shows and how that was measured."""
    return el(css, content, el("figcaption", caption))


def section(name: str, heading: str, *inside: Inside) -> Html:
    """A part of the page, which the list at its top leads to."""
    return el("section", el("h2", heading), *inside, attributes={"id": name})


def note(text: Inside) -> Html:
    """Small print."""
    return el("p.note", text)


def heads(*names: str) -> list[Html]:
    """Column heads: a name that begins with `>` stands above numbers."""
    return [
        el(
            "th.num" if name.startswith(">") else "th",
            name.removeprefix(">"),
            attributes={"scope": "col"},
        )
        for name in names
    ]


def row_head(name: str, small: str = "") -> Html:
    """A row's head."""
    return el("th", name, el("small", small) if small else None, attributes={"scope": "row"})
