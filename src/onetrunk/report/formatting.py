"""Numbers and names as the page shows them: the filters of its templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onetrunk.display import three_digits
from onetrunk.eval.table import number, spaced

METRIC_WORDS = {
    "error": "error",
    "map_error": "1 − mAP",
    "nrmse": "RMSE / standard deviation",
    "miou": "mean IoU",
    "abs": "absolute error",
    "mean": "mean angle",
    "recall_at_1": "recall@1",
    "balanced_error": "balanced error",
    "top5_error": "top-5 error",
    "ece": "calibration error (ECE)",
    "pixel_accuracy": "pixel accuracy",
    "rel": "relative error",
    "median": "median angle",
    "within_11": "within 11.25°",
    "within_22": "within 22.5°",
    "within_30": "within 30°",
    "rmse": "RMSE",
    "mae": "mean absolute error",
}


def measure(value: float, unit: str) -> str:
    """Format a number with its unit: `4.21 %`."""
    return number(value, unit) + spaced(unit)


def signed(value: float, unit: str, like: float = 0.0) -> str:
    """Format a difference: `+0.42` or `−0.42`, with as many decimals as a score `like`."""
    text = number(abs(value), unit)
    if unit not in ("%", "°") and like:
        text = f"{abs(value):.{max(0, 3 - math.floor(math.log10(abs(like))))}f}"
    if not float(text):
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def difference_unit(unit: str) -> str:
    """Return the unit of a difference: percentages differ by points."""
    return "points" if unit == "%" else unit


def seeds(values: Sequence[int]) -> str:
    """Format the seeds of runs: `1 seed (0)`."""
    return f"{len(values)} seed{'s' * (len(values) != 1)} ({', '.join(map(str, values))})"


def minus(text: str) -> str:
    """Replace hyphens before numbers by minus signs."""
    return text.replace("-", "−")


def times(value: float | None, other: float | None) -> str:
    """Format a ratio: `0.14×`, or a dash where it is not defined."""
    if value is None or not other:
        return "–"
    return f"{three_digits(value / other)}×"


def milliseconds(value: float | None) -> str:
    """Format milliseconds without their unit, or a dash."""
    return "–" if value is None else three_digits(value)


def percent(value: float) -> str:
    """Format a position in a chart: `12.50%`."""
    return f"{value:.2f}%"


def metric_words(metric: str, unit: str, better: str = "lower") -> str:
    """Name a metric: `mean IoU, % (higher is better)`."""
    words = METRIC_WORDS.get(metric, metric) + (f", {unit}" if unit else "")
    return words + (" (higher is better)" if better == "higher" else "")


def flat(value: object) -> str:
    """Format a value of environment.json in one line, with shortened digests."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {flat(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(flat(inner) for inner in value)
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text
