"""Scores of what is said of a whole image: classes, labels, numbers, places in a space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.eval.accumulator import F64, Scores, total, wide

BINS = 15  # of the calibration error
CHUNK = 2**24  # inner products that are held at once


class Classify(Scores):
    """Top-1 error, balanced error and calibration error, in percent.

    balanced error: mean over the classes that have images of the share of each that is wrong
    (torchmetrics' macro recall counts a class that is predicted but has no image as all wrong:
    0.50 for 0.75 on labels 0, 0, 1, 1 and predictions 0, 0, 1, 2).

    calibration error: Σ_b n_b/n · |accuracy_b − confidence_b| over 15 equal bins of the confidence
    of the predicted class (Guo et al. 2017). torchmetrics puts a confidence of exactly 1, which a
    sure network gives in single precision, into a bin of its own: 7.5 for 2.5 % on 50 images of
    confidence 1 with 45 right and 50 of 0.95, all right.
    """

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        sure = out.float().softmax(1).amax(1)
        self.hold({"best": out.argmax(1), "sure": sure, "target": target})

    def take(self, best: NDArray[np.int64], target: NDArray[Any]) -> None:
        """Classes that someone else predicted, without a confidence: no calibration error then.

        A class outside the task's, one number above them, is always wrong.
        """
        classes, labels = (torch.from_numpy(a.astype(np.int64)) for a in (best, target))
        sure = torch.full(labels.shape, torch.nan)
        held = {"best": classes, "sure": sure, "target": labels}
        self.hold({**held, "finite": torch.ones(labels.shape, dtype=torch.bool)})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.held("target") != NO_CLASS
        return known

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(true, predicted) classes of the labelled images."""
        known = self.labelled
        return self.held("target")[known], self.held("best")[known]

    def measure(self) -> dict[str, float]:
        true, best = self.pairs()
        right = true == best
        classes = len(self.task.classes)
        each = np.bincount(true, minlength=classes)
        hits = np.bincount(true[right], minlength=classes)
        recall = hits[each > 0] / each[each > 0]
        metrics = {
            "error": 100 * float((~right).sum()) / len(right),
            "balanced_error": 100 * (1 - total(recall) / len(recall)),
        }
        sure = self.held("sure")[self.labelled]
        if not np.isnan(sure).any():
            metrics["ece"] = 100 * calibration(sure, right)
        return metrics

    def parts(self) -> dict[str, NDArray[Any]]:
        known = self.labelled
        missed = (self.held("target") != self.held("best")) & known
        return {"sum": missed.astype(np.float64), "count": known.astype(np.float64)}


class Multilabel(Scores):
    """100 · (1 − mean average precision), over the classes that some image has.

    Average precision is the area under the steps of precision over recall, ties together:
    AP = Σ_k (R_k − R_{k−1})·P_k over distinct scores, highest first. torchmetrics takes the sigmoid
    of logits, which in single precision is 1 from 17 on and loses their order, calls a class
    without any image 0 and averages that, and takes nine times as long (50,000 images, 80 labels).
    """

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        self.hold({"scores": out.float(), "target": target})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = (self.held("target") != NO_LABEL).all(1)
        return known

    def measure(self) -> dict[str, float]:
        scores, truth = self.held("scores")[self.labelled], self.held("target")[self.labelled]
        columns = zip(scores.T, truth.T, strict=True)
        found = [average_precision(column, true == 1) for column, true in columns if true.any()]
        return {"map_error": 100 * (1 - total(np.array(found)) / len(found))} if found else {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {}  # a class's precision is no sum over images


class Regress(Scores):
    """Root mean square error, also in deviations of the split's targets, and mean absolute error.

    nrmse = mean over outputs of √(Σ (y − t)² / n) / std(t); an output whose targets are all the
    same has no standard deviation and is left out of it. rmse and mae: mean over outputs.
    """

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        self.hold({"out": wide(out), "target": wide(target)})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = ~np.isnan(self.held("target")).any(1)
        return known

    def _known(self) -> tuple[F64, F64]:
        """Targets and differences of the labelled images, (n, outputs)."""
        known = self.labelled
        target = self.held("target")[known].astype(np.float64)
        return target, self.held("out")[known].astype(np.float64) - target

    def stds(self) -> F64:
        """Standard standard deviation of each output's targets; 0, not its rounding, where they are one."""
        return np.array([_std(column) for column in self._known()[0].T])

    def measure(self) -> dict[str, float]:
        _, off = self._known()
        rmse = np.sqrt([total(column) / len(column) for column in (off**2).T])
        mae = np.array([total(column) / len(column) for column in np.abs(off).T])
        metrics = {"rmse": float(rmse.mean()), "mae": float(mae.mean())}
        std = self.stds()
        if (std > 0).any():
            metrics = {"nrmse": float((rmse[std > 0] / std[std > 0]).mean()), **metrics}
        return metrics

    def parts(self) -> dict[str, NDArray[Any]]:
        """`sum`: (n, outputs), squared differences in units of the targets' variance."""
        known, std = self.labelled, self.stds()
        squares = np.zeros((len(self), int((std > 0).sum())))
        squares[known] = (self._known()[1][:, std > 0] / std[std > 0]) ** 2
        return {"sum": squares, "count": known.astype(np.float64)}


class Embed(Scores):
    """Recall@1: the share of images whose nearest other image, by inner product, has their class.

    An image whose class no other image of the split has is not asked for; the others still meet it.
    Where several are equally near, the share of them that is right.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._hits: tuple[int, F64] | None = None  # found for so many images

    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        self.hold({"points": out.float(), "target": target})

    @property
    def labelled(self) -> NDArray[np.bool_]:
        known: NDArray[np.bool_] = self.held("target") != NO_CLASS
        return known

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Images that have another one of their class."""
        target, known = self.held("target"), self.labelled
        each = np.bincount(target[known], minlength=1)
        return known & (each[np.where(known, target, 0)] > 1)

    @property
    def count(self) -> int:
        return int(self.asked.sum()) if self._held else 0

    @property
    def lonely(self) -> int:
        """Labelled images that have no other one of their class."""
        return int((self.labelled & ~self.asked).sum()) if self._held else 0

    def hits(self) -> F64:
        """For each image 1 where its nearest other is of its class, 0 where not or not asked."""
        if self._hits is None or self._hits[0] != len(self):
            self._hits = (len(self), self._search())
        return self._hits[1]

    def _search(self) -> F64:
        points, target = self.tensor("points"), self.tensor("target")
        gallery = torch.from_numpy(np.flatnonzero(self.labelled)).to(points.device)
        queries = torch.from_numpy(np.flatnonzero(self.asked)).to(points.device)
        others, classes = points[gallery], target[gallery]
        places = torch.searchsorted(gallery, queries)  # of each query among the others
        hits = np.zeros(len(self))
        if not len(queries):
            return hits
        step = max(1, CHUNK // len(others))
        for start in range(0, len(queries), step):
            rows, own = queries[start : start + step], places[start : start + step]
            near = points[rows] @ others.T
            near.scatter_(1, own[:, None], float("-inf"))
            best = near == near.amax(1, keepdim=True)
            same = best & (classes == target[rows][:, None])
            right, near_by = same.sum(1).cpu().numpy(), best.sum(1).cpu().numpy()
            hits[rows.cpu().numpy()] = right / near_by
        return hits

    def measure(self) -> dict[str, float]:
        return {"recall_at_1": 100 * total(self.hits()) / self.count}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"sum": self.hits(), "count": self.asked.astype(np.float64)}


def _std(values: F64) -> float:
    if not len(values) or (values == values[0]).all():
        return 0.0
    mean = total(values) / len(values)
    return math.sqrt(total((values - mean) ** 2) / len(values))


def calibration(sure: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Expected calibration error, 0…1: bins [b/15, (b+1)/15), the last one with its end."""
    sure = sure.astype(np.float64)
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    gaps = [total(right[bins == b] - sure[bins == b]) for b in range(BINS)]
    return total(np.abs(gaps)) / len(sure)


def average_precision(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Area under precision over recall of one class that some image has."""
    order = np.argsort(-scores)
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal scores
    hits = true[order].cumsum()[last]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last + 1)).sum() / hits[-1])
