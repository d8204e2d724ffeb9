"""Line charts side by side, as a standalone SVG file on a white background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from onetrunk.report.charts import short, ticks

Element = ElementTree.Element
WIDTH, HEIGHT = 260.0, 170.0  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 26.0, 30.0
LEGEND = 26.0
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 }
.background { fill: #fff }
.grid { stroke: #ddd }
polyline { fill: none; stroke-width: 1.6 }
polyline.c0 { stroke: #1b6ca8 } polygon.c0 { fill: #1b6ca8 }
polyline.c1 { stroke: #c2570c } polygon.c1 { fill: #c2570c }
polyline.c2 { stroke: #2e7d4f } polygon.c2 { fill: #2e7d4f }
polyline.c3 { stroke: #8a3fa0 } polygon.c3 { fill: #8a3fa0 }
"""
# Circle, square, triangle, diamond: series can be told apart without colours.
SHAPES = (
    ((0, -3), (2.1, -2.1), (3, 0), (2.1, 2.1), (0, 3), (-2.1, 2.1), (-3, 0), (-2.1, -2.1)),
    ((-2.7, -2.7), (2.7, -2.7), (2.7, 2.7), (-2.7, 2.7)),
    ((0, -3.4), (3.2, 2.4), (-3.2, 2.4)),
    ((0, -3.8), (3.4, 0), (0, 3.8), (-3.4, 0)),
)


@dataclass(frozen=True)
class Line:
    """The points of one series, by ascending x."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart, whose axes start at 0."""

    title: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel], x_label: str, description: str) -> str:
    """Return the text of the SVG file."""
    svg = sheet(WIDTH * len(panels), HEIGHT + LEGEND, description)
    for i, panel in enumerate(panels):
        group = ElementTree.SubElement(svg, "g", {"transform": f"translate({WIDTH * i:g} 0)"})
        _draw_panel(group, panel, x_label)
    for number, line in enumerate(panels[0].lines if panels else ()):
        x, y = LEFT + 6 + WIDTH * 0.75 * number, HEIGHT + LEGEND - 10
        mark(svg, number, x, y)
        text(svg, line.label, x + 9, y + 4, "start")
    return to_text(svg)


def sheet(width: float, height: float, description: str) -> Element:
    """Return an SVG element with the style and a white background."""
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "role": "img",
            "aria-label": description,
        },
    )
    ElementTree.SubElement(svg, "style").text = STYLE
    ElementTree.SubElement(svg, "rect", {"class": "background", **size})
    return svg


def to_text(svg: Element) -> str:
    """Return an SVG element as the text of a file."""
    return ElementTree.tostring(svg, encoding="unicode")


def _draw_panel(parent: Element, panel: Panel, x_label: str) -> None:
    points = [point for line in panel.lines for point in line.points]
    right = max((x for x, _ in points), default=1.0) or 1.0
    top = 1.08 * max((y for _, y in points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + width * x / right, TOP + height * (1 - max(y, 0.0) / top)

    text(parent, panel.title, LEFT, TOP - 11, "start", "title")
    for tick in ticks(0, top, 4):
        _, y = place(0, tick)
        rule(parent, LEFT, WIDTH - RIGHT, y)
        text(parent, short(tick), LEFT - 5, y + 4, "end")
    for tick in ticks(0, right, 4):
        x, y = place(tick, 0)
        text(parent, short(tick), x, y + 14, "middle")
    text(parent, x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "middle")
    for number, line in enumerate(panel.lines):
        spots = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        ElementTree.SubElement(parent, "polyline", {"class": f"c{number % 4}", "points": path})
        for x, y in spots:
            mark(parent, number, x, y)


def mark(parent: Element, number: int, x: float, y: float) -> None:
    """Draw the mark of a series."""
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in SHAPES[number % 4])
    ElementTree.SubElement(parent, "polygon", {"class": f"c{number % 4}", "points": path})


def rule(parent: Element, x1: float, x2: float, y: float) -> None:
    """Draw a horizontal line of the grid."""
    ends = {"x1": f"{x1:.1f}", "x2": f"{x2:.1f}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
    ElementTree.SubElement(parent, "line", {"class": "grid", **ends})


def text(parent: Element, content: str, x: float, y: float, anchor: str, css: str = "") -> None:
    """Write a text."""
    css_class = {"class": css} if css else {}
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ElementTree.SubElement(parent, "text", {**css_class, **place}).text = content
