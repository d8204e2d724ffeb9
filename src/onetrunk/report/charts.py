"""The geometry of the charts; templates/charts.html.j2 draws them as inline SVG.

Strips and scatter plots place their marks in percent of a box that stretches, so that marks and
letters keep their size on a phone. Line charts have a fixed shape and are placed side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onetrunk.report.verdict import Result

COLOURS, SHAPES = 10, 5  # of the marks of domains
WIDTH, HEIGHT = 300.0, 150.0  # of a line chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 38.0, 8.0, 8.0, 20.0
MAX_POINTS = 400  # of a curve
CLIP = 1.2  # heights of a line chart, at which higher values are clipped
SETTLED = 0.12  # share of the steps; earlier values may be above the chart
NEIGHBOURS = 8  # of the same domain, by which the density at a point is measured
LETTER, LINE = 1.1, 4.0  # width and height of a name's letters, in percent of a scatter plot
ASPECT = 1.6  # width of a scatter plot divided by its height


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    text: str
    anchor: str = "middle"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers in a range: 1, 2, 2.5 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.75), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def short(value: float) -> str:
    """Return the text of a tick: 12000 is 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


# -- strips: a number with its interval, in a table's cell


@dataclass(frozen=True)
class Scale:
    """The range that all strips of one unit share."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the position of a value in percent of the width, clipped to the edges."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class Strip:
    """A dot with its interval; positions in percent.

    Args:
        result: The class that colours it.
        ends: The ends of the interval that are within the scale.
        band: The ends of the shaded margin.
    """

    label: str
    result: Result | str
    dot: float
    zero: float
    interval: tuple[float, float] | None
    ends: tuple[float, ...]
    band: tuple[float, float] | None


@dataclass(frozen=True)
class StripAxis:
    """The axis of the strips of one unit; positions in percent."""

    label: str
    ticks: tuple[Tick, ...]


def scale_of(values: Sequence[float]) -> Scale:
    """Return a range that contains 0 and the values, with some room on both sides."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    room = 0.06 * (high - low) or 1.0
    return Scale(low - room, high + room)


def strip(
    scale: Scale,
    value: float,
    low: float | None,
    high: float | None,
    margin: float | None,
    result: Result | str,
    label: str,
) -> Strip:
    """Place a value and its interval; the band goes from 0 to the margin."""
    ends = [end for end in (low, high) if end is not None and scale.low <= end <= scale.high]
    known = low is not None and high is not None
    return Strip(
        label=label,
        result=result,
        dot=scale.at(value),
        zero=scale.at(0),
        interval=None if low is None or high is None else (scale.at(low), scale.at(high)),
        ends=tuple(map(scale.at, ends)) if known else (),
        band=None if margin is None else (scale.at(0), scale.at(margin)),
    )


def strip_axis(scale: Scale, unit: str, signs: bool = True) -> StripAxis:
    """Return the axis of a scale; with `signs`, numbers above 0 have a plus."""

    def tick(value: float) -> Tick:
        at = scale.at(value)
        anchor = "start" if at < 6 else "end" if at > 94 else "middle"
        sign = "+" if value > 0 and signs else "−" if value < 0 else ""
        return Tick(at, f"{sign}{abs(value):g}", anchor)

    label = f"scale from {scale.low:.3g} to {scale.high:.3g} {unit}".strip()
    return StripAxis(label, tuple(map(tick, ticks(scale.low, scale.high, 4))))


# -- line charts: curves over steps


@dataclass(frozen=True)
class Series:
    """One curve: its points, the class that colours it, and the step that is marked."""

    label: str
    css: str
    points: Sequence[tuple[float, float]]
    marked: float | None = None


@dataclass(frozen=True)
class DrawnSeries:
    """A curve in the chart's units."""

    css: str
    points: tuple[tuple[float, float], ...]
    ring: tuple[float, float] | None


@dataclass(frozen=True)
class LineChart:
    """Curves with their axes, in the chart's units."""

    label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[DrawnSeries, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT


def line_chart(series: Sequence[Series], label: str) -> LineChart:
    """Place curves over steps in a chart that starts at 0; early values may be above it."""
    drawn = [each for each in series if each.points]
    last = max((x for each in drawn for x, _ in each.points), default=1.0) or 1.0
    settled = [y for each in drawn for x, y in each.points if x >= SETTLED * last]
    top = 1.08 * max(settled, default=0.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        up = min(max(y / top, 0.0), CLIP) if math.isfinite(y) else CLIP
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + width * x / last, TOP + height * (1 - up)

    def x_tick(step: float) -> Tick:
        x, _ = place(step, 0)
        return Tick(x, short(step), "end" if x > WIDTH - RIGHT - 12 else "middle")

    lines = []
    for each in drawn:
        points = tuple(place(x, y) for x, y in thinned(each.points))
        marked = [place(x, y) for x, y in each.points if x == each.marked]
        ring = marked[0] if marked else points[0] if len(points) == 1 else None
        lines.append(DrawnSeries(each.css, points, ring))
    return LineChart(
        label,
        tuple(map(x_tick, ticks(0, last, 3))),
        tuple(Tick(place(0, y)[1], short(y), "end") for y in ticks(0, top, 3)),
        tuple(lines),
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MAX_POINTS points: the means of equal parts of a longer curve."""
    if len(points) <= MAX_POINTS:
        return list(points)
    parts = np.array_split(np.asarray(points, dtype=np.float64), MAX_POINTS)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)]


# -- scatter plots: images of domains in the plane


@dataclass(frozen=True)
class Mark:
    """The mark of a domain: a shape's id and the class that colours it."""

    shape: str
    css: str


@dataclass(frozen=True)
class ScatterPlot:
    """Points and names; positions in percent."""

    label: str
    points: tuple[tuple[Mark, float, float], ...]
    names: tuple[tuple[str, float, float], ...]


def mark_of(domain: int) -> Mark:
    """Return the mark of a domain by its number."""
    return Mark(f"m{(domain + domain // COLOURS) % SHAPES}", f"d{domain % COLOURS}")


def scatter_plot(
    xy_N2: NDArray[np.float64], domain_N: NDArray[np.int64], names: Sequence[str], label: str
) -> ScatterPlot:
    """Place points with their domains' marks, and each domain's name at its densest point."""
    xy_N2 = fit_to_box(xy_N2)
    order = np.random.default_rng(0).permutation(len(xy_N2))  # no domain covers another
    points = tuple(
        (mark_of(int(domain_N[i])), float(xy_N2[i, 0]), float(xy_N2[i, 1])) for i in order
    )
    placed = place_names(xy_N2, domain_N, names)
    return ScatterPlot(label, points, tuple((name, x, y) for name, (x, y) in placed.items()))


def place_names(
    xy_N2: NDArray[np.float64], domain_N: NDArray[np.int64], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Place each domain's name at its densest point that is clear of other names."""
    placed: dict[str, tuple[float, float]] = {}
    for number, name in enumerate(names):
        points = xy_N2[domain_N == number]
        if not len(points):
            continue
        distance = np.linalg.norm((points[:, None] - points[None]) / [1, ASPECT], axis=-1)
        near = np.sort(distance, axis=1)[:, min(NEIGHBOURS, len(points) - 1)]
        spots = points[np.argsort(near, kind="stable")]
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


def fit_to_box(xy_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate points so that they are widest horizontally, and scale them to percent of the box."""
    centred = xy_N2 - xy_N2.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    rotated = centred @ axes[:, ::-1]
    rotated -= (rotated.max(0) + rotated.min(0)) / 2
    width, height = np.ptp(rotated, axis=0)
    scale = 94 / max(float(width), ASPECT * float(height), 1e-12)
    placed: NDArray[np.float64] = 50 + rotated * scale * [1, ASPECT]
    return placed


# -- heat maps: square tables whose cells are coloured


@dataclass(frozen=True)
class HeatCell:
    """A number, the class of its sign, and how strongly it is coloured (0 to 1)."""

    text: str
    css: str
    strength: float


@dataclass(frozen=True)
class HeatMap:
    """A table over pairs of domains."""

    caption: str
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


def heat_map(
    names: Sequence[str],
    values: NDArray[np.float64],
    diagonal: Sequence[float] | None,
    caption: str,
) -> HeatMap:
    """Colour numbers from −1 to 1; those of `diagonal` are shown on the diagonal, in brackets."""

    def cell(i: int, j: int) -> HeatCell:
        if i == j:
            if diagonal is None:
                return HeatCell("·", "self", 0)
            return _heat_cell(float(diagonal[i]), "({})")
        return _heat_cell(float(values[i, j]), "{}")

    count = range(len(names))
    return HeatMap(caption, tuple((names[i], tuple(cell(i, j) for j in count)) for i in count))


def _heat_cell(value: float, form: str) -> HeatCell:
    if not math.isfinite(value):
        return HeatCell("–", "self", 0)
    text = f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00").replace("-", "−")
    return HeatCell(form.format(text), "pos" if value >= 0 else "neg", min(abs(value), 1.0))
