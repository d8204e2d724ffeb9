"""Dot plots of methods by their cost and error, as a standalone SVG file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panels import Element, mark, rule, sheet, text, to_text

NAME, PANEL, GAP, ROW, TOP = 122.0, 210.0, 46.0, 19.0, 46.0


@dataclass(frozen=True)
class Spot:
    """One method: its bytes per domain and its error."""

    name: str
    bytes: float
    error: float


def draw(title: str, spots: Sequence[Spot], description: str) -> str:
    """Return the text of the SVG file, with a row per method by ascending bytes."""
    ordered = sorted(spots, key=lambda spot: (spot.bytes, -spot.error))
    width, height = NAME + 2 * PANEL + 2 * GAP, TOP + ROW * len(ordered) + 8
    svg = sheet(width, height, description)
    text(svg, title, 8, 18, "start", "title")
    for number, spot in enumerate(ordered):
        y = TOP + ROW * (number + 0.5)
        rule(svg, 8, width - 8, y)
        text(svg, spot.name, 8, y - 4, "start")
    costs = [math.log10(spot.bytes) for spot in ordered]
    errors = [spot.error for spot in ordered]
    _draw_dots(svg, NAME, "bytes per domain added (logarithmic)", costs, lambda x: size(10**x), 0.9)
    _draw_dots(svg, NAME + PANEL + GAP, "mean test error, % (from 0)", errors, "{:.1f}".format, 0.0)
    return to_text(svg)


def _draw_dots(
    svg: Element,
    left: float,
    heading: str,
    values: Sequence[float],
    number_text: Callable[[float], str],
    start: float,
) -> None:
    """Draw dots with their numbers on a scale from `start` times the smallest to the largest."""
    low, high = start * min(values), max(values)
    text(svg, heading, left, TOP - 8, "start")
    for number, value in enumerate(values):
        x = left + PANEL * (value - low) / ((high - low) or 1.0)
        y = TOP + ROW * (number + 0.5)
        mark(svg, 0, x, y)
        text(svg, number_text(value), x + 7, y - 4, "start")


def size(count: float) -> str:
    """Format bytes: `24 kB`, `1.1 MB`."""
    return f"{count / 1e6:.1f} MB" if count >= 999_500 else f"{count / 1e3:.0f} kB"
