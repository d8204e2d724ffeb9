"""Predictions on images held out in folds, and the comparison of two methods on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import NO_CLASS
from onetrunk.train.fewshot.folds import Subset


@dataclass(frozen=True)
class FoldErrors:
    """Which held-out images of one fold are predicted wrongly, by task; only labelled ones."""

    wrong: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, logits: Mapping[str, Tensor], fold: Subset) -> Self:
        """Return the errors of these logits of the fold's held-out images."""
        wrong = {}
        for task in fold.tasks:
            predicted = logits[task.name].argmax(1).cpu().numpy()
            labels = fold.val.label(task.name)
            labelled = labels != NO_CLASS
            wrong[task.name] = (predicted != labels)[labelled]
        return cls(wrong)

    @classmethod
    def from_json(cls, document: Mapping[str, str]) -> Self:
        """Return the errors in a document from `to_json`."""
        return cls({name: np.array([c == "1" for c in bits]) for name, bits in document.items()})

    def to_json(self) -> dict[str, Any]:
        """Return a digit for each image, by task."""
        return {name: "".join("01"[int(w)] for w in each) for name, each in self.wrong.items()}


def error_of(folds: Sequence[FoldErrors]) -> float:
    """Return the error over these folds in percent, averaged over tasks."""
    errors = []
    for task in folds[0].wrong:
        wrong = np.concatenate([fold.wrong[task] for fold in folds])
        errors.append(100 * float(wrong.mean()) if len(wrong) else 0.0)
    return float(np.mean(errors))


def is_clearly_worse(
    one: Sequence[FoldErrors], other: Sequence[FoldErrors], deviations: float
) -> bool:
    """Return whether `one` has more errors than `other` on the same images, beyond chance.

    The mean of the paired differences has to exceed this number of standard errors. With x images
    that only `one` gets wrong and y that only `other` does, of n, the variance of a difference is
    (x + y)/n − ((x − y)/n)² (McNemar 1947, without the assumption of equality).
    """
    difference = np.concatenate(
        [
            a.wrong[task].astype(np.float64) - b.wrong[task]
            for a, b in zip(one, other, strict=True)
            for task in a.wrong
        ]
    )
    mean = float(difference.mean())
    return mean > 0 and mean > deviations * float(difference.std()) / len(difference) ** 0.5
