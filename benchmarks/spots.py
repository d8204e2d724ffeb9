"""Points with their names, over a logarithmic scale of bytes, as an SVG file of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from panels import STYLE, mark, text

from onetrunk.measure.report.charts import short, ticks
from onetrunk.measure.report.html import Html, el

WIDE, HIGH = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 110.0, 30.0, 40.0
LETTER, LINE = 5.8, 12.0  # of a name, in the picture's units
STEPS = (1, 3)  # of each power of ten


@dataclass(frozen=True)
class Spot:
    """One thing: what it costs, how far it errs."""

    name: str
    bytes: float
    error: float


def draw(title: str, spots: Sequence[Spot], across: str, up: str, said: str) -> Html:
    """The file's text; `said`: the picture in a sentence."""
    ends = [math.log10(spot.bytes) for spot in spots]
    left, right = min(ends) - 0.15, max(ends) + 0.15
    errors = [spot.error for spot in spots]
    span = max(max(errors) - min(errors), 1.0)
    low, high = min(errors) - 0.12 * span, max(errors) + 0.12 * span

    def place(size: float, error: float) -> tuple[float, float]:
        x = (math.log10(size) - left) / (right - left)
        y = (error - low) / (high - low)
        return LEFT + (WIDE - LEFT - RIGHT) * x, HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * y

    drawn = [text(f"{title}: {up}", LEFT, TOP - 14, "start", "title")]
    for tick in ticks(low, high):
        _, y = place(10**left, tick)
        drawn += [_line(LEFT, WIDE - RIGHT, y, y), text(short(tick), LEFT - 5, y + 4, "end")]
    for power in range(math.floor(left), math.ceil(right)):
        for step in STEPS:
            if left <= math.log10(step * 10**power) <= right:
                x, y = place(step * 10**power, low)
                drawn += [_line(x, x, TOP, y), text(size(step * 10**power), x, y + 14, "middle")]
    drawn.append(text(across, (LEFT + WIDE - RIGHT) / 2, HIGH - 8, "middle"))
    taken: list[tuple[float, float, float]] = []  # left, right and base of names that are placed
    for spot in sorted(spots, key=lambda spot: -spot.error):
        x, y = place(spot.bytes, spot.error)
        start, end, base = x + 8, x + 8 + LETTER * len(spot.name), y + 4
        for other in taken:
            if start < other[1] and other[0] < end:
                base = max(base, other[2] + LINE)
        taken.append((start, end, base))
        drawn += [mark(0, x, y), text(spot.name, start, base, "start")]
    head = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {WIDE:g} {HIGH:g}",
        "role": "img",
        "aria-label": said,
    }
    ground = el("rect.ground", attributes={"width": f"{WIDE:g}", "height": f"{HIGH:g}"})
    return el("svg", el("style", Html(STYLE)), ground, *drawn, attributes=head)


def size(count: float) -> str:
    """10 kB, 3 MB."""
    return f"{count / 1e6:g} MB" if count >= 1e6 else f"{count / 1e3:g} kB"


def _line(x1: float, x2: float, y1: float, y2: float) -> Html:
    ends = {"x1": f"{x1:.1f}", "x2": f"{x2:.1f}", "y1": f"{y1:.1f}", "y2": f"{y2:.1f}"}
    return el("line.grid", attributes=ends)
