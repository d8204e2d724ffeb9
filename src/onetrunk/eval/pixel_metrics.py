"""Scores of what is said of every pixel: classes, depth, normals. All pooled over the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.eval.accumulator import Scores, total, wide

FINE = 100  # bins a degree: the median of angles is within half a bin, 0.005°
WITHIN = {"within_11": 11.25, "within_22": 22.5, "within_30": 30.0}  # degrees
LONG = 0.5  # a normal shorter than this is none


class Segment(Scores):
    """Mean IoU and pixel accuracy in percent, from the pixels of all images together.

    IoU_c = right_c / (predicted_c + labelled_c − right_c) over labelled pixels; a class that is
    neither labelled nor predicted is left out of the mean. An image's three areas a class are
    kept (not torchmetrics' one confusion matrix): intervals are made of the same numbers.
    """

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        classes = out.shape[1]
        best = out.argmax(1)
        known = target != NO_PIXEL
        label = torch.where(known, target.long(), classes)
        best = torch.where(known, best, classes)
        right = torch.where(label == best, label, classes)
        areas = [histogram(classes_of, classes + 1) for classes_of in (right, best, label)]
        self.hold({"areas": torch.stack(areas, 1)[:, :, :classes]})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.held("areas")[:, 2].sum(1) > 0
        return known

    def measure(self) -> dict[str, float]:
        areas = self.held("areas").sum(0)
        return {"miou": 100 * float(mean_iou(areas)), "pixel_accuracy": 100 * accuracy(areas)}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"areas": self.held("areas")}


class Depth(Scores):
    """Absolute error in metres, Σ|y − t|/n over pixels, and relative to depth, Σ(|y − t|/t)/n."""

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        known = target > 0
        off = (wide(out[:, 0]) - wide(target)).abs()
        off = torch.where(known, off, 0)
        share = off / torch.where(known, wide(target), 1)
        self.hold({"sum": off.sum((1, 2)), "rel": share.sum((1, 2)), "count": known.sum((1, 2))})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.held("count") > 0
        return known

    def measure(self) -> dict[str, float]:
        pixels = int(self.held("count").sum())
        return {"abs": total(self.held("sum")) / pixels, "rel": total(self.held("rel")) / pixels}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {name: self.held(name).astype(np.float64) for name in ("sum", "count")}


class Normals(Scores):
    """Angle between predicted and true normals over pixels: mean, median, and shares in percent.

    The angle is atan2(|a×b|, a·b), exact for small ones too. The median comes from a histogram of
    bins of 0.01° and is therefore within 0.005°; the shares within 11.25, 22.5 and 30 degrees are
    counted exactly.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._bins: Tensor | None = None

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        out, target = wide(out), wide(target)
        known = (target * target).sum(1) > LONG**2
        across = torch.linalg.cross(out, target, dim=1).square().sum(1).sqrt()
        angle = torch.rad2deg(torch.atan2(across, (out * target).sum(1)))
        held = {"sum": torch.where(known, angle, 0).sum((1, 2)), "count": known.sum((1, 2))}
        for name, limit in WITHIN.items():
            held[name] = (known & (angle < limit)).sum((1, 2))
        self.hold(held)
        place = torch.where(known, (angle * FINE).long().clamp(0, 180 * FINE - 1), 180 * FINE)
        bins = histogram(place.flatten()[None], 180 * FINE + 1)[0]
        self._bins = bins if self._bins is None else self._bins + bins

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.held("count") > 0
        return known

    def measure(self) -> dict[str, float]:
        pixels = int(self.held("count").sum())
        assert self._bins is not None
        bins = self._bins[:-1].cpu().numpy()
        shares = {name: 100 * int(self.held(name).sum()) / pixels for name in WITHIN}
        mean = total(self.held("sum")) / pixels
        return {"mean": mean, "median": middle(bins) / FINE, **shares}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {name: self.held(name).astype(np.float64) for name in ("sum", "count")}


def histogram(values_BX: Tensor, bins: int) -> Tensor:
    """How often each whole number 0 … bins-1 stands in each row, (B, bins); waits for nothing.

    torch.bincount would wait for the device, to know the largest number.
    """
    values = values_BX.flatten(1)
    rows = torch.arange(len(values), device=values.device)[:, None]
    places = (values + rows * bins).flatten()
    found = torch.zeros(len(values) * bins, dtype=torch.int64, device=values.device)
    found.scatter_add_(0, places, torch.ones_like(places))
    return found.view(len(values), bins)


def mean_iou(areas_3C: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over classes of right / (predicted + labelled − right), for any number of (…, 3, C)."""
    right, best, label = (areas_3C[..., i, :].astype(np.float64) for i in range(3))
    either = best + label - right
    there = either > 0
    iou = np.where(there, right / np.where(there, either, 1), 0)
    mean: NDArray[np.float64] = iou.sum(-1) / there.sum(-1)
    return mean


def accuracy(areas_3C: NDArray[Any]) -> float:
    """Share of the labelled pixels that are right."""
    return float(areas_3C[0].sum() / areas_3C[2].sum())


def middle(bins: NDArray[np.int64]) -> float:
    """The median of what a histogram counts, in bins, as if each value lay in its bin's middle."""
    ends, count = bins.cumsum(), int(bins.sum())
    low, high = (
        int(np.searchsorted(ends, rank, "right")) for rank in ((count - 1) // 2, count // 2)
    )
    return (low + high) / 2 + 0.5
