"""The geometry of the charts; templates/charts.html.j2 draws them as inline SVG.

Strips and scatter plots place their marks in percent of a box that stretches, so that marks and
letters keep their size on a phone. Line charts have a fixed shape and are placed side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
PLOT = (13.0, 97.0, 5.0, 88.0)  # left, right, top and bottom of the area between axes, in percent
# width of a letter and height of a line of names beside points, and their distance, in percent
BESIDE_LETTER, BESIDE_LINE, BESIDE = 2.0, 5.0, 4.0
NEAR = 12.0  # between the heights of marks whose names might cover each other, in percent
STEP = 3.0  # between marks that are side by side, in percent
MOVES = 100  # times that names are moved apart


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


# -- scatter plots: images of domains in the plane, or runs by size and error


@dataclass(frozen=True)
class Mark:
    """The mark of a domain: a shape's id and the class that colours it."""

    shape: str
    css: str


@dataclass(frozen=True)
class Name:
    """A name in a scatter plot; positions in percent.

    Args:
        leader: The point that a line joins to the name, if they are apart.
    """

    text: str
    x: float
    y: float
    anchor: str = "middle"
    strong: bool = False
    leader: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bar:
    """The interval of a point; positions in percent."""

    css: str
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name."""

    name: str
    at: float


@dataclass(frozen=True)
class ScatterPlot:
    """Points and names, with axes, intervals and levels if there are any; positions in percent."""

    label: str
    points: tuple[tuple[Mark, float, float], ...]
    names: tuple[Name, ...]
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    bars: tuple[Bar, ...] = ()
    levels: tuple[Level, ...] = ()


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
    return ScatterPlot(label, points, tuple(Name(name, x, y) for name, (x, y) in placed.items()))


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


@dataclass(frozen=True)
class PlacedPoint:
    """A point with its name, in the units of the axes."""

    name: str
    mark: Mark
    x: float
    y: float
    interval: tuple[float, float] | None
    strong: bool = False


@dataclass(frozen=True)
class AxisRange:
    """The range of an axis, how its numbers are written, and where; by default at round ones."""

    low: float
    high: float
    text: Callable[[float], str]
    marked: tuple[float, ...] | None = None

    def ticks(self, start: float, end: float) -> tuple[Tick, ...]:
        """Return the ticks of an axis that goes from `start` to `end`, in percent of the box."""
        marked = ticks(self.low, self.high) if self.marked is None else self.marked
        return tuple(Tick(self.at(value, start, end), self.text(value)) for value in marked)

    def at(self, value: float, start: float, end: float) -> float:
        """Return the position of a value."""
        return start + (end - start) * (value - self.low) / (self.high - self.low)


def scatter_of_runs(
    points: Sequence[PlacedPoint],
    levels: Sequence[Level],
    x: AxisRange,
    y: AxisRange,
    label: str,
) -> ScatterPlot:
    """Place points with intervals and names between two axes, and horizontal levels."""
    left, right, top, bottom = PLOT
    across = side_by_side([x.at(p.x, left, right) for p in points])
    at = [(at_x, y.at(p.y, bottom, top)) for at_x, p in zip(across, points, strict=True)]
    bars = [
        Bar(p.mark.css, at_x, *(y.at(end, bottom, top) for end in p.interval))
        for p, (at_x, _) in zip(points, at, strict=True)
        if p.interval is not None
    ]
    return ScatterPlot(
        label,
        tuple((p.mark, *place) for p, place in zip(points, at, strict=True)),
        tuple(place_beside(at, [p.name for p in points], [p.strong for p in points])),
        x.ticks(left, right),
        y.ticks(bottom, top),
        tuple(bars),
        tuple(Level(each.name, y.at(each.at, bottom, top)) for each in levels),
    )


def side_by_side(positions: Sequence[float]) -> list[float]:
    """Return positions in percent with those that are nearly the same moved apart, centred."""
    placed = list(positions)
    for group in _groups(placed):
        middle = sum(placed[i] for i in group) / len(group)
        for number, i in enumerate(group):
            placed[i] = middle + STEP * (number - (len(group) - 1) / 2)
    return placed


def _groups(positions: Sequence[float]) -> list[list[int]]:
    """Return the indices of positions that are nearly the same; others are left out."""
    order = sorted(range(len(positions)), key=lambda i: (positions[i], i))
    groups: list[list[int]] = []
    for i in order:
        if groups and positions[i] - positions[groups[-1][-1]] < STEP * 1.001:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [group for group in groups if len(group) > 1]


def place_beside(
    points: Sequence[tuple[float, float]], names: Sequence[str], strong: Sequence[bool]
) -> list[Name]:
    """Place each name right or left of its point, moved up or down so that none covers another."""
    edges = [(x, x) for x, _ in points]  # of the marks that are side by side
    for group in _groups([x for x, _ in points]):
        for i in group:
            near = [j for j in group if abs(points[j][1] - points[i][1]) < NEAR]
            edges[i] = points[near[0]][0], points[near[-1]][0]
    spans = []
    for (first, last), name in zip(edges, names, strict=True):
        width = BESIDE_LETTER * len(name) + BESIDE
        spans.append((last, last + width) if last + width <= 100 else (first - width, first))
    ys = [y for _, y in points]
    order = sorted(range(len(points)), key=lambda i: (ys[i], i))
    pairs = [
        (i, j)
        for number, i in enumerate(order)
        for j in order[number + 1 :]
        if spans[i][0] < spans[j][1] and spans[j][0] < spans[i][1]
    ]
    for _ in range(MOVES):
        for i, j in pairs:
            if (missing := BESIDE_LINE - (ys[j] - ys[i])) > 0:
                ys[i] -= missing / 2
                ys[j] += missing / 2
        ys = [min(max(y, PLOT[2]), PLOT[3] - 1) for y in ys]
    found = []
    for i, (x, y) in enumerate(points):
        right = spans[i][0] == edges[i][1]
        at = edges[i][1 if right else 0]
        apart = at != x or abs(y - ys[i]) > BESIDE_LINE / 3
        anchor = "start" if right else "end"
        found.append(Name(names[i], at, ys[i], anchor, strong[i], (x, y) if apart else None))
    return found


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
