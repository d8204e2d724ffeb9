"""Scores of each class, and their means over the classes.

All shares are from 0 to 1; None where a share is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class.

    Args:
        label: The name of the class.
        support: Images of the class (segment: pixels; embed: queries).
        predicted: Images or pixels that were predicted as the class.
        precision: Share of what was predicted as the class that belongs to it.
        recall: Share of the class that was predicted as it (embed: recall@1).
        f1: 2·precision·recall / (precision + recall).
        average_precision: Area under precision over recall (multilabel).
        iou: Pixels right / (predicted + labelled − right) (segment).
    """

    label: str
    support: int
    predicted: int | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    average_precision: float | None = None
    iou: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


SHARES = ("precision", "recall", "f1", "average_precision", "iou")  # fields of ClassScores


def class_scores(
    labels: Sequence[str],
    right: NDArray[np.integer],
    predicted: NDArray[np.integer],
    support: NDArray[np.integer],
) -> tuple[ClassScores, ...]:
    """Return precision, recall and F1 of each class from counts by class."""
    counts = zip(right.tolist(), predicted.tolist(), support.tolist(), strict=True)
    return tuple(
        ClassScores(
            label=label,
            support=n,
            predicted=p,
            precision=_share(r, p),
            recall=_share(r, n),
            f1=_share(2 * r, p + n),
        )
        for label, (r, p, n) in zip(labels, counts, strict=True)
    )


def macro_mean(classes: Sequence[ClassScores]) -> ClassScores:
    """Return the mean of each share over the classes that have images, each with equal weight.

    A precision that is not defined, because the class is never predicted, counts as 0.
    """
    return _mean("macro mean", classes, lambda _: 1)


def weighted_mean(classes: Sequence[ClassScores]) -> ClassScores:
    """Return the mean of each share over the classes, weighted by their support."""
    return _mean("weighted mean", classes, lambda one: one.support)


def shown_fields(classes: Sequence[ClassScores]) -> tuple[str, ...]:
    """Return the names of the fields that at least one class has, in order."""
    names = [field.name for field in fields(ClassScores)]
    return tuple(n for n in names if any(getattr(one, n) is not None for one in classes))


def _mean(
    label: str, classes: Sequence[ClassScores], weight: Callable[[ClassScores], int]
) -> ClassScores:
    present = [one for one in classes if one.support]
    total = sum(map(weight, present))
    means: dict[str, float] = {}
    for name in shown_fields(present):
        if name in SHARES and total:
            values = [weight(one) * (getattr(one, name) or 0.0) for one in present]
            means[name] = math.fsum(values) / total
    known = [one.predicted for one in classes if one.predicted is not None]
    return ClassScores(
        label, sum(one.support for one in classes), sum(known) if known else None, **means
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
