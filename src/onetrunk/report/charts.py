"""Charts as inline SVG, coloured through the page's variables: light, dark and print look right.

Strips and maps place their marks in percent of a box that stretches, so that marks and letters keep
their size on a phone; curves are small panels of a fixed shape that stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onetrunk.report.html import Html, el, join

COLOURS, SHAPES = 10, 5  # of domains on a map, by number
WIDE, HIGH = 300.0, 150.0  # of a panel's drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 38.0, 8.0, 8.0, 20.0
MOST = 400  # points of a curve
CUT = 1.2  # heights of a panel: what is above lies outside of its box
SETTLED = 0.12  # of the steps: what comes before may lie above the panel
NEIGHBOURS = 8  # of its own domain, by which a point of a map is crowded
LETTER, LINE = 1.1, 4.0  # width and height of a name's letters, in percent of a map
ASPECT = 1.6  # width of a map by its height


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    label: str
    css: str  # class that colours it
    points: Sequence[tuple[float, float]]
    marked: float | None = None  # x of the point that was chosen


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About so many round numbers inside a range (1, 2, 2.5 or 5 times a power of ten)."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.75), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def short(value: float) -> str:
    """A tick's number: 1200 is 1.2k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


# -- strips: a difference with its interval, in a table's cell


@dataclass(frozen=True)
class Scale:
    """The range that all strips of one unit share."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value lies, in percent of the width; what lies outside is at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def scale_of(values: Sequence[float]) -> Scale:
    """A range with 0 and all of these inside, and a little more."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = 0.06 * (high - low) or 1.0
    return Scale(low - room, high + room)


def strip(
    scale: Scale,
    value: float,
    low: float | None,
    high: float | None,
    allowed: float | None,
    reading: str,
    label: str,
) -> Html:
    """A dot and its interval; the band from 0 to the margin is what a domain may lose."""
    marks: list[Html] = []
    if allowed is not None:
        start, stop = scale.at(0), scale.at(allowed)
        width = f"{float(stop[:-1]) - float(start[:-1]):.2f}%"
        band = {"x": start, "y": 0, "width": width, "height": 26}
        marks.append(el("rect.band", attributes=band))
    marks.append(_line("zero", scale.at(0), 0, scale.at(0), 26))
    if low is not None and high is not None:
        marks.append(_line(f"span.{reading}", scale.at(low), 13, scale.at(high), 13))
        for end in (low, high):
            if scale.low <= end <= scale.high:
                marks.append(_line(f"span.{reading}", scale.at(end), 9, scale.at(end), 17))
    dot = {"cx": scale.at(value), "cy": 13, "r": 4.5}
    marks.append(el(f"circle.dot.{reading}", attributes=dot))
    return el("svg.strip", *marks, attributes={"role": "img", "aria-label": label, "height": 26})


def strip_axis(scale: Scale, unit: str, signs: bool = True) -> Html:
    """The numbers under which the strips of one unit lie; `signs`: + before those above 0."""
    marks: list[Html] = []
    for tick in ticks(scale.low, scale.high, 4):
        where = scale.at(tick)
        marks.append(_line("tick", where, 18, where, 22))
        text = f"{'+' if tick > 0 and signs else '−' if tick < 0 else ''}{abs(tick):g}"
        percent = float(where[:-1])
        anchor = "start" if percent < 6 else "end" if percent > 94 else "middle"
        spot = {"x": where, "y": "13", "text-anchor": anchor}
        marks.append(el("text", text, attributes=spot))
    said = f"scale from {scale.low:.3g} to {scale.high:.3g} {unit}".strip()
    return el(
        "svg.strip.axis", *marks, attributes={"role": "img", "aria-label": said, "height": 22}
    )


def _line(css: str, x1: object, y1: object, x2: object, y2: object) -> Html:
    return el(f"line.{css}", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2})


# -- panels: curves over steps


def panel(curves: Sequence[Curve], label: str) -> Html:
    """Curves over steps, from 0 up; the first steps may lie above the panel."""
    drawn = [curve for curve in curves if curve.points]
    xs = [x for curve in drawn for x, _ in curve.points]
    right = max(xs, default=1.0) or 1.0
    early = SETTLED * right
    top = 1.08 * max((y for curve in drawn for x, y in curve.points if x >= early), default=0.0)
    top = top or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        inside = WIDE - LEFT - RIGHT
        up = min(max(y / top, 0.0), CUT) if math.isfinite(y) else CUT
        return LEFT + inside * x / right, TOP + (HIGH - TOP - BOTTOM) * (1 - up)

    marks: list[Html] = []
    for tick in ticks(0, top, 3):
        _, y = place(0, tick)
        marks.append(_line("grid", f"{LEFT:g}", f"{y:.1f}", f"{WIDE - RIGHT:g}", f"{y:.1f}"))
        spot = {"x": f"{LEFT - 5:g}", "y": f"{y + 3.5:.1f}", "text-anchor": "end"}
        marks.append(el("text", short(tick), attributes=spot))
    for step in ticks(0, right, 3):
        x, _ = place(step, 0)
        anchor = "end" if x > WIDE - RIGHT - 12 else "middle"
        spot = {"x": f"{x:.1f}", "y": f"{HIGH - 6:g}", "text-anchor": anchor}
        marks.append(el("text", short(step), attributes=spot))
    for curve in drawn:
        where = [place(x, y) for x, y in thinned(curve.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        marks.append(el(f"polyline.curve.{curve.css}", attributes={"points": path}))
        chosen = [place(x, y) for x, y in curve.points if x == curve.marked]
        if chosen or len(where) == 1:
            x, y = chosen[0] if chosen else where[0]
            spot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3.5"}
            marks.append(el(f"circle.chosen.{curve.css}", attributes=spot))
    box = {"viewBox": f"0 0 {WIDE:g} {HIGH:g}", "role": "img", "aria-label": label}
    return el("svg.panel", *marks, attributes=box)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST points: the mean of each stretch of a longer curve."""
    if len(points) <= MOST:
        return list(points)
    parts = np.array_split(np.asarray(points, dtype=np.float64), MOST)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)]


# -- maps: points of domains in the plane


def shape_of(domain: int) -> tuple[str, str]:
    """The mark of a domain, by its number: a shape's name and the class that colours it."""
    return f"m{(domain + domain // COLOURS) % SHAPES}", f"d{domain % COLOURS}"


def shapes() -> Html:
    """The marks, defined once for the page."""
    drawn = (
        el("circle", attributes={"r": 3}),
        el("rect", attributes={"x": -2.7, "y": -2.7, "width": 5.4, "height": 5.4}),
        el("path", attributes={"d": "M0-3.6 3.4 2.6H-3.4Z"}),
        el("path", attributes={"d": "M0-3.9 3.9 0 0 3.9-3.9 0Z"}),
        el("path", attributes={"d": "M-3.2-1.1H-1.1V-3.2H1.1V-1.1H3.2V1.1H1.1V3.2H-1.1V1.1H-3.2Z"}),
    )
    symbols = [el("g", shape, attributes={"id": f"m{i}"}) for i, shape in enumerate(drawn)]
    hidden = {"width": 0, "height": 0, "aria-hidden": "true", "class": "defs"}
    return el("svg", el("defs", *symbols), attributes=hidden)


def mark(domain: int) -> Html:
    """A domain's mark, for a legend."""
    shape, colour = shape_of(domain)
    use = el("use", attributes={"href": f"#{shape}", "x": 6, "y": 6, "class": colour})
    return el("svg.mark", use, attributes={"width": 12, "height": 12, "aria-hidden": "true"})


def scatter(
    xy_N2: NDArray[np.float64], domain_N: NDArray[np.int64], names: Sequence[str], label: str
) -> Html:
    """Points, each with its domain's mark; each domain's name where most of it lies."""
    xy_N2 = fitted(xy_N2)
    groups: list[Html] = []
    order = np.random.default_rng(0).permutation(len(xy_N2))  # no domain lies above another
    for i in order:
        shape, colour = shape_of(int(domain_N[i]))
        x, y = (f"{v:.1f}%" for v in xy_N2[i])
        groups.append(el("use", attributes={"href": f"#{shape}", "x": x, "y": y, "class": colour}))
    texts = []
    for name, (across, down) in places(xy_N2, domain_N, names).items():
        spot = {"x": f"{across:.1f}%", "y": f"{down:.1f}%", "text-anchor": "middle"}
        texts.append(el("text.halo", name, attributes=spot))
    return el(
        "svg.map", el("g", *groups), join(*texts), attributes={"role": "img", "aria-label": label}
    )


def places(
    xy_N2: NDArray[np.float64], domain_N: NDArray[np.int64], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Where each domain's name stands: at its most crowded point that is clear of other names."""
    placed: dict[str, tuple[float, float]] = {}
    for number, name in enumerate(names):
        mine = xy_N2[domain_N == number]
        if not len(mine):
            continue
        apart = np.linalg.norm((mine[:, None] - mine[None]) / [1, ASPECT], axis=-1)
        near = np.sort(apart, axis=1)[:, min(NEIGHBOURS, len(mine) - 1)]
        spots = mine[np.argsort(near, kind="stable")]
        spots = spots.clip([LETTER * len(name) / 2, LINE], [100 - LETTER * len(name) / 2, 99])
        clear = [
            all(
                abs(x - other[0]) > LETTER * (len(name) + len(at)) / 2 or abs(y - other[1]) > LINE
                for at, other in placed.items()
            )
            for x, y in spots
        ]
        x, y = spots[clear.index(True) if True in clear else 0]
        placed[name] = (float(x), float(y))
    return placed


def fitted(xy_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turned so that it is widest from side to side, in percent of a box, its shape kept."""
    centred = xy_N2 - xy_N2.mean(0)
    _, turn = np.linalg.eigh(centred.T @ centred)
    turned = centred @ turn[:, ::-1]
    turned -= (turned.max(0) + turned.min(0)) / 2
    width, height = np.ptp(turned, axis=0)
    scale = 94 / max(float(width), ASPECT * float(height), 1e-12)
    placed: NDArray[np.float64] = 50 + turned * scale * [1, ASPECT]
    return placed


# -- heat: a square table whose cells are coloured


def heat(
    names: Sequence[str],
    values: NDArray[np.float64],
    diagonal: Sequence[float] | None,
    caption: str,
) -> Html:
    """−1…1 as colours behind the numbers; `diagonal`: other numbers there, in brackets."""
    head = el("tr", el("td"), [_head("th.up", name, "col") for name in names])
    rows = [head]
    for i, name in enumerate(names):
        cells: list[Html] = []
        for j in range(len(names)):
            if i == j and diagonal is None:
                cells.append(el("td.self", "·"))
                continue
            value = float(diagonal[i]) if i == j and diagonal is not None else float(values[i, j])
            cells.append(_cell(value, i == j))
        rows.append(el("tr", _head("th", name, "row"), cells))
    return el("table.heat", el("caption", caption), el("thead", rows[0]), el("tbody", rows[1:]))


def _head(tag: str, name: str, scope: str) -> Html:
    return el(tag, el("span", name), attributes={"scope": scope})


def _cell(value: float, own: bool) -> Html:
    if not math.isfinite(value):
        return el("td.self", "–")
    size = min(abs(value), 1.0)
    css = "pos" if value >= 0 else "neg"
    text = f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00").replace("-", "−")
    style = {"style": f"--v:{size:.2f}"}
    return el(f"td.{css}", f"({text})" if own else text, attributes=style)
