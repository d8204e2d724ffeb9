"""Charts: where marks are placed, that texts are escaped, and that colours are legible."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib.resources import files
from itertools import product

import numpy as np
import pytest

from onetrunk.report.charts import (
    ASPECT,
    Scale,
    Series,
    fit_to_box,
    heat_map,
    line_chart,
    mark_of,
    scale_of,
    scatter_plot,
    strip,
    strip_axis,
    thinned,
    ticks,
)
from onetrunk.report.page import environment


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-0.4, 9.6, [0, 2, 4, 6, 8]),
        (0, 0.031, [0, 0.01, 0.02, 0.03]),
        (-3, 3, [-2, 0, 2]),
        (1, 1, [1]),
        (float("nan"), 1, []),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def markup(chart: object, macro: str) -> str:
    """Draw a chart with a macro of charts.html.j2."""
    return str(getattr(environment().get_template("charts.html.j2").module, macro)(chart))


def drawn(chart: object, macro: str) -> ET.Element:
    return ET.fromstring(markup(chart, macro))


def test_a_strip_places_its_marks() -> None:
    scale = Scale(-2.0, 8.0)
    found = drawn(strip(scale, 3.0, 1.0, 12.0, 2.0, "worse", "digits <3>"), "strip")
    dot = found.find("circle")
    band = found.find("rect")
    assert dot is not None and band is not None
    assert dot.get("cx") == "50.00%" and "worse" in (dot.get("class") or "")
    assert (band.get("x"), band.get("width")) == ("20.00%", "20.00%")
    span = [line for line in found.findall("line") if line.get("y1") == "13"]
    assert [(line.get("x1"), line.get("x2")) for line in span] == [("30.00%", "100.00%")]
    assert found.get("aria-label") == "digits <3>"
    ends = [line for line in found.findall("line") if line.get("y1") == "9"]
    assert len(ends) == 1  # an end outside the scale is not drawn
    plain = drawn(strip(scale, 3.0, None, None, None, "undecided", "x"), "strip")
    assert plain.find("rect") is None and len(plain.findall("line")) == 1


def test_scales_hold_zero_and_all_values() -> None:
    scale = scale_of([2.0, 4.0, float("nan")])
    assert scale.low < 0 < 4 < scale.high
    assert scale_of([]).high > 0
    axis = drawn(strip_axis(Scale(-2, 8), "%"), "strip_axis")
    texts = [text.text for text in axis.findall("text")]
    assert texts == ["−2", "0", "+2", "+4", "+6", "+8"]


def test_a_line_chart_draws_curves_in_its_box() -> None:
    points = [(float(x), 100.0 / x) for x in range(1, 101)]
    series = [Series("one", "g0", points, 50.0), Series("none", "base", [])]
    found = drawn(line_chart(series, "a < b"), "line_chart")
    (line,) = found.findall("polyline")
    pairs = [tuple(map(float, pair.split(","))) for pair in (line.get("points") or "").split()]
    assert len(pairs) == 100
    assert all(30 < x < 300 for x, _ in pairs)
    settled = [y for (x, y), (step, _) in zip(pairs, points, strict=True) if step >= 12]
    assert all(0 < y < 150 for y in settled)
    assert settled == sorted(settled)  # falls: y grows downwards
    (ring,) = found.findall("circle")
    assert float(ring.get("cx") or 0) == pytest.approx(pairs[49][0])
    assert found.get("aria-label") == "a < b"


def test_a_line_chart_of_no_point_of_one_and_of_zeros() -> None:
    assert line_chart([], "empty").series == ()
    assert line_chart([Series("x", "g0", [(5.0, 1.0)])], "one").series[0].ring is not None
    for points in ([(1.0, 0.0), (2.0, 0.0)], [(0.0, 3.0)]):  # zeros; only step 0
        chart = line_chart([Series("x", "g0", points)], "flat")
        assert np.isfinite(chart.series[0].points).all()
        assert "nan" not in markup(chart, "line_chart")


def test_long_curves_are_thinned_to_means() -> None:
    points = [(float(x), float(x % 2)) for x in range(4000)]
    found = thinned(points)
    assert len(found) == 400
    assert {y for _, y in found} == {0.5}
    assert thinned(points[:5]) == points[:5]


def test_a_scatter_plot_keeps_its_shape_and_names() -> None:
    chance = np.random.default_rng(0)
    xy = chance.normal(size=(50, 2)) * [1, 4]
    placed = fit_to_box(xy)
    assert placed.min() >= 3 - 1e-9 and placed.max() <= 97 + 1e-9
    true = placed / [1, ASPECT]  # in units of the box
    apart = np.linalg.norm(true[:, None] - true[None], axis=-1)
    before = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.testing.assert_allclose(apart, before * (apart.max() / before.max()), atol=1e-9)
    assert np.ptp(placed[:, 0]) == pytest.approx(94)  # its long side is horizontal
    plot = scatter_plot(xy, np.arange(50) % 2, ["<a>", "b"], "map")
    found = drawn(plot, "scatter_plot")
    assert len(found.findall("g/use")) == 50
    assert [text.text for text in found.findall("text")] == ["<a>", "b"]
    point = scatter_plot(np.zeros((3, 2)), np.zeros(3, int), ["a"], "one point")
    assert "nan" not in markup(point, "scatter_plot")


def test_fifty_domains_have_distinct_marks() -> None:
    assert len({mark_of(i) for i in range(50)}) == 50
    assert len({mark_of(i).css for i in range(10)}) == 10


def test_a_heat_map_shows_numbers_and_their_strength() -> None:
    values = np.array([[1.0, -0.25], [-0.25, np.nan]])
    table = markup(heat_map(["<a>", "b"], values, [0.9, 0.1], "cosine"), "heat_map")
    assert "&lt;a&gt;" in table and "<a>" not in table
    assert re.findall(r'class="(\w+)"[^>]*>([^<]*)</td>', table) == [
        ("pos", "(.90)"),
        ("neg", "−.25"),
        ("neg", "−.25"),
        ("pos", "(.10)"),
    ]
    assert "--v:0.25" in table
    ((_, (cell,)),) = heat_map(["a"], np.ones((1, 1)), None, "x").rows
    assert cell.css == "self"
    unknown = heat_map(["a", "b"], np.full((2, 2), np.nan), None, "x")
    assert unknown.rows[0][1][1].text == "–"


# -- colours


def themes() -> list[dict[str, str]]:
    """Return the CSS variables of the light theme and of the dark one."""
    style = (files("onetrunk.report") / "templates" / "style.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = [dict(re.findall(r"--([\w]+): ([^;]+);", block)) for block in blocks]
    return [found[0], {**found[0], **found[1]}]


def light(colour: tuple[float, ...]) -> float:
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2: (L₁ + 0.05)/(L₂ + 0.05)."""
    a, b = sorted((light(one), light(other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_are_legible_in_both_themes(theme: int) -> None:
    colours = themes()[theme]
    for text, background in product(
        ("ink", "muted", "one", "good", "bad", "open"), ("paper", "panel")
    ):
        assert contrast(rgb(colours[text]), rgb(colours[background])) >= 4.5, (text, background)
    share = float(colours["heat"].removesuffix("%")) / 100
    for tint, v in product(("pos", "neg"), (0.0, 0.5, 1.0)):
        mixed = [
            (share * v) * c + (1 - share * v) * p
            for c, p in zip(rgb(colours[tint]), rgb(colours["paper"]), strict=True)
        ]
        assert contrast(rgb(colours["ink"]), tuple(mixed)) >= 4.5, (tint, v)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_marks_are_visible_in_both_themes(theme: int) -> None:
    colours = themes()[theme]
    for name in ("one", "base", *(f"d{i}" for i in range(10))):
        for background in ("paper", "panel"):
            assert contrast(rgb(colours[name]), rgb(colours[background])) >= 3, (name, background)
