"""How much a network may lose against another one and still count as equally good.

The margin of a score with error e is

    m = min(max(0.005·s, 0.05·e), 0.02·s),

with s the scale of the score: 100 for scores in percent, otherwise the error of a constant
prediction (floors.py). For percent it is a twentieth of the error, at least half a point and at
most two. Where the scale is not known, it is 0.05·e.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.05  # of the baseline's error
MIN_MARGIN, MAX_MARGIN = 0.005, 0.02  # shares of the scale
PERCENT = 100.0  # the scale of scores in percent


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, where that is known, and its value for each seed."""

    value: float
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()


def margin_of(error: float, scale: float | None) -> float:
    """Return the margin of a score, from its error and its scale."""
    share = SHARE * abs(error)
    return share if scale is None else min(max(MIN_MARGIN * scale, share), MAX_MARGIN * scale)


def scale_of(unit: str, constant_error: float | None) -> float | None:
    """Return the scale of a score: 100 for percent, else the error of a constant prediction."""
    return PERCENT if unit == "%" else constant_error or None  # 0: nothing is to be learned
