"""Rows of dots: a thing a row, what it costs and how far it errs, as an SVG file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panels import mark, sheet, text

from onetrunk.report.html import Html, el

NAME, PANEL, GAP, ROW, TOP = 122.0, 210.0, 46.0, 19.0, 46.0


@dataclass(frozen=True)
class Spot:
    """One thing: what it costs, how far it errs."""

    name: str
    bytes: float
    error: float


def draw(title: str, spots: Sequence[Spot], said: str) -> Html:
    """The file's text, by rising bytes; `said`: the picture in a sentence."""
    ordered = sorted(spots, key=lambda spot: (spot.bytes, -spot.error))
    high, wide = TOP + ROW * len(ordered) + 8, NAME + 2 * PANEL + 2 * GAP
    drawn = [text(title, 8, 18, "start", "title")]
    for number, spot in enumerate(ordered):
        y = TOP + ROW * (number + 0.5)
        drawn += [_line(8, wide - 8, y), text(spot.name, 8, y - 4, "start")]
    costs = [math.log10(spot.bytes) for spot in ordered]
    errors = [spot.error for spot in ordered]
    drawn += _panel(NAME, "bytes a new domain (logarithmic)", costs, lambda x: size(10**x), 0.9)
    drawn += _panel(NAME + PANEL + GAP, "mean test error, % (from 0)", errors, "{:.1f}".format, 0.0)
    return sheet(wide, high, said, drawn)


def _panel(
    left: float, what: str, values: Sequence[float], said: Callable[[float], str], start: float
) -> list[Html]:
    """Dots with their numbers, from `start` times the smallest to the largest."""
    low, high = start * min(values), max(values)
    marks = [text(what, left, TOP - 8, "start")]
    for number, value in enumerate(values):
        x = left + PANEL * (value - low) / ((high - low) or 1.0)
        y = TOP + ROW * (number + 0.5)
        marks += [mark(0, x, y), text(said(value), x + 7, y - 4, "start")]
    return marks


def size(count: float) -> str:
    """24 kB, 1.1 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 999_500 else f"{count / 1e3:.0f} kB"


def _line(x1: float, x2: float, y: float) -> Html:
    ends = {"x1": f"{x1:.1f}", "x2": f"{x2:.1f}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
    return el("line.grid", attributes=ends)
