"""Small panels of lines side by side, as an SVG file of its own, on a white ground for any page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onetrunk.report.charts import short, ticks
from onetrunk.report.html import Html, el, join

WIDE, HIGH = 260.0, 170.0  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 26.0, 30.0
LEGEND = 26.0
MARKS = ("circle", "square", "triangle", "diamond")  # so that colour is not all there is
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 }
.ground { fill: #fff }
.grid { stroke: #ddd }
polyline { fill: none; stroke-width: 1.6 }
polyline.c0 { stroke: #1b6ca8 } polygon.c0 { fill: #1b6ca8 }
polyline.c1 { stroke: #c2570c } polygon.c1 { fill: #c2570c }
polyline.c2 { stroke: #2e7d4f } polygon.c2 { fill: #2e7d4f }
polyline.c3 { stroke: #8a3fa0 } polygon.c3 { fill: #8a3fa0 }
"""


@dataclass(frozen=True)
class Line:
    """Points of one thing, by rising x."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """What is drawn in one frame, from 0 up."""

    title: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel], across: str, said: str) -> Html:
    """The file's text; `across`: what lies along x, `said`: the picture in a sentence."""
    wide, high = WIDE * len(panels), HIGH + LEGEND
    drawn = [
        el("g", _panel(panel, across), attributes={"transform": f"translate({WIDE * i:g} 0)"})
        for i, panel in enumerate(panels)
    ]
    labels = [line.label for line in panels[0].lines] if panels else []
    return sheet(wide, high, said, [*drawn, _legend(labels)])


def sheet(wide: float, high: float, said: str, drawn: Sequence[Html]) -> Html:
    """A picture of its own: what is drawn, on white."""
    head = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {wide:g} {high:g}",
        "role": "img",
        "aria-label": said,
    }
    ground = el("rect.ground", attributes={"width": f"{wide:g}", "height": f"{high:g}"})
    return el("svg", el("style", Html(STYLE)), ground, *drawn, attributes=head)


def _panel(panel: Panel, across: str) -> Html:
    points = [point for line in panel.lines for point in line.points]
    right = max((x for x, _ in points), default=1.0) or 1.0
    top = 1.08 * max((y for _, y in points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        inside, tall = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM
        return LEFT + inside * x / right, TOP + tall * (1 - max(y, 0.0) / top)

    marks = [text(panel.title, LEFT, TOP - 11, "start", "title")]
    for tick in ticks(0, top, 4):
        _, y = place(0, tick)
        ends = {"x1": f"{LEFT:g}", "x2": f"{WIDE - RIGHT:g}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        marks += [el("line.grid", attributes=ends), text(short(tick), LEFT - 5, y + 4, "end")]
    for tick in ticks(0, right, 4):
        x, y = place(tick, 0)
        marks.append(text(short(tick), x, y + 14, "middle"))
    marks.append(text(across, (LEFT + WIDE - RIGHT) / 2, HIGH - 3, "middle"))
    for number, line in enumerate(panel.lines):
        spots = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        marks.append(el(f"polyline.c{number % 4}", attributes={"points": path}))
        marks += [mark(number, x, y) for x, y in spots]
    return join(marks)


def _legend(labels: Sequence[str]) -> Html:
    marks = []
    for number, label in enumerate(labels):
        x, y = LEFT + 6 + WIDE * 0.75 * number, HIGH + LEGEND - 10
        marks += [mark(number, x, y), text(label, x + 9, y + 4, "start")]
    return join(marks)


def mark(number: int, x: float, y: float) -> Html:
    shapes = {
        "circle": [(0, -3), (2.1, -2.1), (3, 0), (2.1, 2.1), (0, 3), (-2.1, 2.1), (-3, 0),
                   (-2.1, -2.1)],
        "square": [(-2.7, -2.7), (2.7, -2.7), (2.7, 2.7), (-2.7, 2.7)],
        "triangle": [(0, -3.4), (3.2, 2.4), (-3.2, 2.4)],
        "diamond": [(0, -3.8), (3.4, 0), (0, 3.8), (-3.4, 0)],
    }  # fmt: skip
    corners = shapes[MARKS[number % 4]]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return el(f"polygon.c{number % 4}", attributes={"points": path})


def text(text: str, x: float, y: float, anchor: str, css: str = "") -> Html:
    spot = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return el(f"text.{css}" if css else "text", text, attributes=spot)
