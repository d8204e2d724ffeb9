"""Scores of one prediction per pixel (classes, depth, normals), pooled over the split's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.eval.metrics.by_class import ClassScores, class_scores
from onetrunk.eval.metrics.scores import (
    F64,
    ImagePrediction,
    Metric,
    Scores,
    exact_sum,
    to_double,
)
from onetrunk.eval.table import number, spaced

BINS_PER_DEGREE = 100  # the median of angles is within half a bin, 0.005°
WITHIN = {"within_11": 11.25, "within_22": 22.5, "within_30": 30.0}  # degrees
MIN_LENGTH = 0.5  # a shorter target normal is a missing label


class Segment(Scores):
    """Mean IoU and pixel accuracy in percent, from the pixels of all images together.

    IoU_c = right_c / (predicted_c + labelled_c − right_c) over labelled pixels; a class that is
    neither labelled nor predicted is left out of the mean. Three areas per class are kept for each
    image, instead of torchmetrics' one confusion matrix, because intervals need them too.
    """

    kind = "segment"
    metrics = (Metric("miou", "%", "higher"), Metric("pixel_accuracy", "%", "higher"))
    outcome_arrays = ("areas",)

    def _add(self, out: Tensor, target: Tensor) -> None:
        classes = out.shape[1]
        labelled = target != NO_PIXEL
        label = torch.where(labelled, target.long(), classes)
        predicted = torch.where(labelled, out.argmax(1), classes)
        right = torch.where(label == predicted, label, classes)
        areas = [histogram(pixels, classes + 1) for pixels in (right, predicted, label)]
        areas_B3C = torch.stack(areas, 1)[:, :, :classes]
        self._keep({"areas": areas_B3C, "labelled": areas_B3C[:, 2].sum(1) > 0})

    def _compute(self) -> dict[str, float]:
        areas = self.array("areas").sum(0)
        accuracy = float(areas[0].sum() / areas[2].sum())
        return {"miou": 100 * float(mean_iou(areas)), "pixel_accuracy": 100 * accuracy}

    def per_image(self) -> dict[str, NDArray[Any]]:
        return {"areas": self.array("areas")}

    def per_class(self) -> tuple[ClassScores, ...]:
        """From the pixels of all images together."""
        areas = self.array("areas").sum(0)
        unions = (areas[1] + areas[2] - areas[0]).tolist()
        return tuple(
            replace(one, iou=right / union if union else None)
            for one, right, union in zip(
                class_scores(self.task.classes, *areas), areas[0].tolist(), unions, strict=True
            )
        )

    def image_errors(self) -> F64 | None:
        """1 − the mean IoU of each image's own pixels."""
        labelled = self.labelled
        errors = np.full(len(self), np.nan)
        errors[labelled] = 1 - mean_iou(self.array("areas")[labelled])
        return errors

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        shares = mean_iou(self.array("areas")[images]).tolist()
        return [ImagePrediction(predicted=f"mean IoU {100 * iou:.0f} %") for iou in shares]

    @classmethod
    def headlines(cls, sums_RK: F64) -> F64:
        """Return 100 · mean IoU of each row of flattened (3, classes) areas."""
        return 100 * mean_iou(sums_RK.reshape(len(sums_RK), 3, -1))


class _PixelErrors(Scores):
    """Errors of pixels: `sum` over an image's labelled pixels, and their `count`."""

    def _keep_errors(self, error: Tensor, labelled: Tensor) -> None:
        count = labelled.sum((1, 2))
        total = torch.where(labelled, error, 0).sum((1, 2))
        self._keep({"sum": total, "count": count, "labelled": count > 0})

    def per_image(self) -> dict[str, NDArray[Any]]:
        return {name: self.array(name).astype(np.float64) for name in ("sum", "count")}

    def image_errors(self) -> F64 | None:
        """The mean error over each image's labelled pixels."""
        labelled = self.labelled
        errors = np.full(len(self), np.nan)
        errors[labelled] = self.array("sum")[labelled] / self.array("count")[labelled]
        return errors

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        errors = self.array("sum")[images] / self.array("count")[images]
        metric = self.metrics[0]
        unit = self.task.unit if metric.task_unit and self.task.unit else metric.unit
        words = [f"error {number(error, unit)}{spaced(unit)}" for error in errors.tolist()]
        return [ImagePrediction(predicted=text) for text in words]


class Depth(_PixelErrors):
    """Absolute error in metres, Σ|y − t|/n over pixels, and relative to depth, Σ(|y − t|/t)/n."""

    kind = "depth"
    metrics = (Metric("abs", "m", task_unit=True), Metric("rel"))

    def _add(self, out: Tensor, target: Tensor) -> None:
        labelled = target > 0
        error = (to_double(out[:, 0]) - to_double(target)).abs()
        relative = torch.where(labelled, error, 0) / torch.where(labelled, to_double(target), 1)
        self._keep_errors(error, labelled)
        self._keep({"relative": relative.sum((1, 2))})

    def _compute(self) -> dict[str, float]:
        pixels = int(self.array("count").sum())
        return {
            "abs": exact_sum(self.array("sum")) / pixels,
            "rel": exact_sum(self.array("relative")) / pixels,
        }


class Normals(_PixelErrors):
    """Angle between predicted and true normals over pixels: mean, median, and shares in percent.

    The angle is atan2(|a×b|, a·b), which is exact for small angles too. The median comes from a
    histogram with bins of 0.01° and is therefore within 0.005°; the shares within 11.25, 22.5 and
    30 degrees are counted exactly.
    """

    kind = "normals"
    metrics = (
        Metric("mean", "°"),
        Metric("median", "°"),
        *(Metric(name, "%", "higher") for name in WITHIN),
    )

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._bins: Tensor | None = None

    def _add(self, out: Tensor, target: Tensor) -> None:
        out, target = to_double(out), to_double(target)
        labelled = (target * target).sum(1) > MIN_LENGTH**2
        cross = torch.linalg.cross(out, target, dim=1).square().sum(1).sqrt()
        angle = torch.rad2deg(torch.atan2(cross, (out * target).sum(1)))
        self._keep_errors(angle, labelled)
        for name, limit in WITHIN.items():
            self._keep({name: (labelled & (angle < limit)).sum((1, 2))})
        count = 180 * BINS_PER_DEGREE  # and one more, for pixels without a label
        bins = torch.where(labelled, (angle * BINS_PER_DEGREE).long().clamp(0, count - 1), count)
        counts = histogram(bins.flatten()[None], count + 1)[0]
        self._bins = counts if self._bins is None else self._bins + counts

    def _compute(self) -> dict[str, float]:
        pixels = int(self.array("count").sum())
        mean = exact_sum(self.array("sum")) / pixels
        shares = {name: 100 * int(self.array(name).sum()) / pixels for name in WITHIN}
        if self._bins is None:
            return {"mean": mean, **shares}
        median = histogram_median(self._bins[:-1].cpu().numpy()) / BINS_PER_DEGREE
        return {"mean": mean, "median": median, **shares}


def histogram(values_BX: Tensor, bins: int) -> Tensor:
    """Count how often each of 0 … bins-1 occurs in each row, (B, bins).

    torch.bincount would synchronize with the device, to find the largest number.
    """
    values = values_BX.flatten(1)
    rows = torch.arange(len(values), device=values.device)[:, None]
    places = (values + rows * bins).flatten()
    counts = torch.zeros(len(values) * bins, dtype=torch.int64, device=values.device)
    counts.scatter_add_(0, places, torch.ones_like(places))
    return counts.view(len(values), bins)


def mean_iou(areas_3C: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over classes of right / (predicted + labelled − right).

    Args:
        areas_3C: Pixels right, predicted and labelled of each class, (…, 3, C).
    """
    right, predicted, labelled = (areas_3C[..., i, :].astype(np.float64) for i in range(3))
    union = predicted + labelled - right
    present = union > 0
    iou = np.where(present, right / np.where(present, union, 1), 0)
    mean: NDArray[np.float64] = iou.sum(-1) / present.sum(-1)
    return mean


def histogram_median(counts: NDArray[np.int64]) -> float:
    """Return the median of a histogram in bins, as if each value lay in the middle of its bin."""
    ends, count = counts.cumsum(), int(counts.sum())
    low, high = (
        int(np.searchsorted(ends, rank, "right")) for rank in ((count - 1) // 2, count // 2)
    )
    return (low + high) / 2 + 0.5
