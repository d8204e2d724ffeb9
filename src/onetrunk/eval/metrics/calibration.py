"""Calibration: whether predictions of confidence p are right in a share p of the cases."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.display import Described, Summary, plural

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence is from `low` to below `high` (the last bin: to 1).

    `confidence` is the mean confidence of these images, `accuracy` the share that is right; both
    are None in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, repr=False)
class Reliability(Described):
    """Confidence against accuracy, in bins of equal width.

    Args:
        bins: The bins in order.
        calibration_error: Σ count/n · |accuracy − confidence| (ECE), from 0 to 1. The metric `ece`
            is the same in percent.
    """

    bins: tuple[ReliabilityBin, ...]
    calibration_error: float

    def summary(self) -> Summary:
        """Return the calibration error, and the bins with images."""
        images = plural(sum(each.count for each in self.bins), "image")
        error = f"calibration error {100 * self.calibration_error:.2f} %"
        rows = [
            (
                f"{each.low:.2f} to {each.high:.2f}",
                f"{each.count:,}",
                f"{100 * each.confidence:.1f} %",
                f"{100 * each.accuracy:.1f} %",
            )
            for each in self.bins
            if each.confidence is not None and each.accuracy is not None
        ]
        columns = ("confidence", "images", "mean confidence", "accuracy")
        return Summary(f"Reliability({images}, {error})", (), columns, rows)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        bins = [asdict(each) for each in self.bins]
        return {"calibration_error": self.calibration_error, "bins": bins}


def reliability(confidence: NDArray[Any], right: NDArray[np.bool_]) -> Reliability:
    """Return the bins of at least one image."""
    confidence = confidence.astype(np.float64)
    place = bin_of(confidence)
    bins = []
    for b in range(BINS):
        inside = place == b
        count = int(inside.sum())
        means = (
            (math.fsum(confidence[inside].tolist()) / count, float(right[inside].mean()))
            if count
            else (None, None)
        )
        bins.append(ReliabilityBin(b / BINS, (b + 1) / BINS, count, *means))
    return Reliability(tuple(bins), calibration_error(confidence, right))


def calibration_error(confidence: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 0…1: bins [b/15, (b+1)/15), the last one closed."""
    confidence = confidence.astype(np.float64)
    bins = bin_of(confidence)
    gaps = right - confidence
    each = [math.fsum(gaps[bins == b].tolist()) for b in range(BINS)]
    return math.fsum(map(abs, each)) / len(confidence)


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each confidence."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
