"""Scores of one prediction per image: a class, several labels, numbers, an embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.eval.metrics.by_class import ClassScores, class_scores
from onetrunk.eval.metrics.calibration import Reliability, calibration_error, reliability
from onetrunk.eval.metrics.confusion import NO_CLASS as NO_CLASS_LABEL
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.eval.metrics.scores import (
    F64,
    ImagePrediction,
    Metric,
    Scores,
    exact_sum,
    to_double,
)

TOP = 5  # of the top-5 error
SHOWN_NUMBERS = 4  # of one image
CHUNK = 2**24  # inner products in memory at a time


class Classify(Scores):
    """Top-1 error, balanced error, top-5 error and calibration error, in percent.

    Top-5 error: the share of images whose class is not among the five with the highest scores; of
    equal scores, the class that comes first is higher. Not defined for five classes or fewer.

    Balanced error: the mean over the classes that have images of each class's share of wrong
    predictions. (torchmetrics' macro recall counts a class that is predicted but has no image as
    all wrong: 0.50 instead of 0.75 on labels 0, 0, 1, 1 and predictions 0, 0, 1, 2.)

    Calibration error: Σ_b n_b/n · |accuracy_b − confidence_b| over 15 equal bins of the confidence
    of the predicted class (Guo et al. 2017). torchmetrics puts a confidence of exactly 1, which
    confident networks reach in single precision, into a separate bin: 7.5 instead of 2.5 % on 50
    images of confidence 1 with 45 right and 50 of 0.95, all right.
    """

    kind = "classify"
    metrics = tuple(Metric(name, "%") for name in ("error", "balanced_error", "top5_error", "ece"))
    share_of_images = True

    def _add(self, out: Tensor, target: Tensor) -> None:
        logarithms = out.float().log_softmax(1)
        confidence = out.float().softmax(1).amax(1)
        true = target.clamp(min=0)[:, None]
        own = out.gather(1, true)
        places = torch.arange(out.shape[1], device=out.device)
        before = (out > own) | ((out == own) & (places < true))
        self._keep({"rank": before.sum(1), "loss": -logarithms.gather(1, true)[:, 0]})
        self._keep_classes(out.argmax(1), confidence, target)

    def add_predicted(self, predicted: NDArray[np.int64], target: NDArray[Any]) -> None:
        """Add predicted classes without confidences; the calibration error is then undefined.

        A class that is not one of the task's, `len(task.classes)`, is always wrong.
        """
        classes, labels = (torch.from_numpy(a.astype(np.int64)) for a in (predicted, target))
        unknown = torch.full(labels.shape, torch.nan)
        self._keep_classes(classes, unknown, labels)
        self._keep({"rank": torch.full(labels.shape, len(self.task.classes)), "loss": unknown})
        self._keep({"finite": torch.ones(labels.shape, dtype=torch.bool)})

    def _keep_classes(self, predicted: Tensor, confidence: Tensor, target: Tensor) -> None:
        labelled = target != NO_CLASS
        self._keep({"predicted": predicted, "confidence": confidence})
        self._keep({"target": target, "labelled": labelled})

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (true, predicted) classes of the labelled images."""
        labelled = self.labelled
        return self.array("target")[labelled], self.array("predicted")[labelled]

    def _compute(self) -> dict[str, float]:
        true, predicted = self.pairs()
        right = true == predicted
        classes = len(self.task.classes)
        counts = np.bincount(true, minlength=classes)
        hits = np.bincount(true[right], minlength=classes)
        recall = hits[counts > 0] / counts[counts > 0]
        metrics = {
            "error": 100 * float((~right).sum()) / len(right),
            "balanced_error": 100 * (1 - exact_sum(recall) / len(recall)),
        }
        if not self.has_scores:
            return metrics
        if classes > TOP:
            missed = self.array("rank")[self.labelled] >= TOP
            metrics["top5_error"] = 100 * float(missed.sum()) / len(missed)
        confidence = self.array("confidence")[self.labelled]
        return metrics | {"ece": 100 * calibration_error(confidence, right)}

    @property
    def has_scores(self) -> bool:
        """Whether the scores of the classes are known, and not only the predicted classes."""
        return not np.isnan(self.array("confidence")).any()

    def confusion(self) -> ConfusionMatrix | None:
        return ConfusionMatrix.of(self.task.classes, *self.pairs())

    def per_class(self) -> tuple[ClassScores, ...]:
        true, predicted = self.pairs()
        count = len(self.task.classes)
        right, found, support = (
            np.bincount(classes, minlength=count)[:count]
            for classes in (true[true == predicted], predicted, true)
        )
        return class_scores(self.task.classes, right, found, support)

    def reliability(self) -> Reliability | None:
        if not self.has_scores:
            return None
        true, predicted = self.pairs()
        return reliability(self.array("confidence")[self.labelled], true == predicted)

    def image_errors(self) -> F64 | None:
        """The cross-entropy of each wrong image."""
        wrong = self.labelled & (self.array("target") != self.array("predicted"))
        loss = self.array("loss").astype(np.float64)
        return np.where(wrong, np.nan_to_num(loss, nan=0.0), np.nan)

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        names = (*self.task.classes, NO_CLASS_LABEL)
        columns = (self.array(name)[images] for name in ("target", "predicted", "confidence"))
        return [
            ImagePrediction(
                given=names[given],
                predicted=names[predicted],
                confidence=None if math.isnan(confidence) else confidence,
            )
            for given, predicted, confidence in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def per_image(self) -> dict[str, NDArray[Any]]:
        labelled = self.labelled
        wrong = (self.array("target") != self.array("predicted")) & labelled
        return {"sum": wrong.astype(np.float64), "count": labelled.astype(np.float64)}


class Multilabel(Scores):
    """100 · (1 − mean average precision), over the classes that some image has.

    Average precision is the area under the step curve of precision over recall, with ties taken
    together: AP = Σ_k (R_k − R_{k−1})·P_k over distinct scores, highest first. torchmetrics takes
    the sigmoid of logits, which in single precision is 1 from 17 on and loses their order, gives a
    class without any image 0 and averages that, and is nine times slower (50,000 images, 80
    labels).
    """

    kind = "multilabel"
    metrics = (Metric("map_error", "%"),)
    outcome_arrays = ()  # an average precision is not a function of sums over images

    def _add(self, out: Tensor, target: Tensor) -> None:
        labelled = (target != NO_LABEL).all(1)
        self._keep({"scores": out.float(), "target": target, "labelled": labelled})

    def _compute(self) -> dict[str, float]:
        scores, target = self.array("scores")[self.labelled], self.array("target")[self.labelled]
        columns = zip(scores.T, target.T, strict=True)
        areas = [average_precision(column, true == 1) for column, true in columns if true.any()]
        return {"map_error": 100 * (1 - exact_sum(np.array(areas)) / len(areas))} if areas else {}

    def per_image(self) -> dict[str, NDArray[Any]]:
        return {}

    def per_class(self) -> tuple[ClassScores, ...]:
        """At a probability of 0.5; the average precision is over all thresholds."""
        scores = self.array("scores")[self.labelled]
        true = self.array("target")[self.labelled] == 1
        predicted = scores >= 0  # logits
        counts = ((predicted & true).sum(0), predicted.sum(0), true.sum(0))
        return tuple(
            replace(one, average_precision=average_precision(column, own) if own.any() else None)
            for one, column, own in zip(
                class_scores(self.task.classes, *counts), scores.T, true.T, strict=True
            )
        )

    def image_errors(self) -> F64 | None:
        """The mean binary cross-entropy over the labels of each image with a wrong label."""
        scores, target = self.array("scores").astype(np.float64), self.array("target") == 1
        loss = np.logaddexp(0, np.where(target, -scores, scores)).mean(1)
        wrong = self.labelled & ((scores >= 0) != target).any(1)
        return np.where(wrong, loss, np.nan)

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        target, scores = self.array("target")[images], self.array("scores")[images]
        pairs = zip(target == 1, scores >= 0, strict=True)
        return [ImagePrediction(self._names(given), self._names(on)) for given, on in pairs]

    def _names(self, on: NDArray[np.bool_]) -> str:
        return ", ".join(self.task.classes[i] for i in np.flatnonzero(on)) or "–"


class Regress(Scores):
    """Root mean square error, also in standard deviations of the targets, and mean absolute error.

    nrmse = mean over outputs of √(Σ (y − t)² / n) / std(t); an output whose targets are all equal
    has no standard deviation and is left out of it. rmse and mae: mean over outputs.
    """

    kind = "regress"
    metrics = (Metric("nrmse"), Metric("rmse", task_unit=True), Metric("mae", task_unit=True))
    needs = "labelled images whose numbers differ"

    def _add(self, out: Tensor, target: Tensor) -> None:
        out, target = to_double(out), to_double(target)
        self._keep({"out": out, "target": target, "labelled": ~target.isnan().any(1)})

    def _labelled_errors(self) -> tuple[F64, F64]:
        """Return targets and errors of the labelled images, (n, outputs)."""
        labelled = self.labelled
        target = self.array("target")[labelled].astype(np.float64)
        return target, self.array("out")[labelled].astype(np.float64) - target

    def stds(self) -> F64:
        """Return the standard deviation of each output's targets; exactly 0 where all are equal."""
        return np.array([_std(column) for column in self._labelled_errors()[0].T])

    def _compute(self) -> dict[str, float]:
        _, errors = self._labelled_errors()
        rmse = np.sqrt([exact_sum(column) / len(column) for column in (errors**2).T])
        mae = np.array([exact_sum(column) / len(column) for column in np.abs(errors).T])
        metrics = {"rmse": float(rmse.mean()), "mae": float(mae.mean())}
        std = self.stds()
        if (std > 0).any():
            metrics = {"nrmse": float((rmse[std > 0] / std[std > 0]).mean()), **metrics}
        return metrics

    def per_image(self) -> dict[str, NDArray[Any]]:
        """`sum`: (n, outputs), squared errors in units of the targets' variance."""
        labelled, std = self.labelled, self.stds()
        squares = np.zeros((len(self), int((std > 0).sum())))
        squares[labelled] = (self._labelled_errors()[1][:, std > 0] / std[std > 0]) ** 2
        return {"sum": squares, "count": labelled.astype(np.float64)}

    @classmethod
    def headlines(cls, sums_RK: F64) -> F64:
        headlines: F64 = np.sqrt(sums_RK[:, :-1] / sums_RK[:, -1:]).mean(1)
        return headlines

    def image_errors(self) -> F64 | None:
        """The root mean square of an image's errors, in standard deviations of the targets."""
        squares = self.per_image()["sum"]
        if not squares.shape[1]:
            return None
        return np.where(self.labelled, np.sqrt(squares.mean(1)), np.nan)

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        pairs = zip(self.array("target")[images], self.array("out")[images], strict=True)
        return [ImagePrediction(self._numbers(t), self._numbers(y)) for t, y in pairs]

    def _numbers(self, values: NDArray[Any]) -> str:
        more = ", …" if len(values) > SHOWN_NUMBERS else ""
        unit = f" {self.task.unit}" if self.task.unit else ""
        return ", ".join(f"{v:.4g}" for v in values[:SHOWN_NUMBERS].tolist()) + more + unit


class Embed(Scores):
    """Recall@1: the share of images whose nearest other image, by inner product, has their class.

    An image whose class no other image of the split has is no query, but others may find it. Where
    several images are equally near, the share of them that has the class counts.
    """

    kind = "embed"
    metrics = (Metric("recall_at_1", "%", "higher"),)
    share_of_images = True
    needs = "two labelled images of one class"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._hits: tuple[int, F64] | None = None  # with the number of images they were found for

    def _add(self, out: Tensor, target: Tensor) -> None:
        labelled = target != NO_CLASS
        self._keep({"embeddings": out.float(), "target": target, "labelled": labelled})

    @property
    def queries(self) -> NDArray[np.bool_]:
        """Which images share their class with another one."""
        target, labelled = self.array("target"), self.labelled
        counts = np.bincount(target[labelled], minlength=1)
        return labelled & (counts[np.where(labelled, target, 0)] > 1)

    @property
    def count(self) -> int:
        return int(self.queries.sum()) if self._batches else 0

    @property
    def single(self) -> int:
        """The number of labelled images that are the only one of their class."""
        return int((self.labelled & ~self.queries).sum()) if self._batches else 0

    def hits(self) -> F64:
        """Return 1 for each query whose nearest other image has its class, else 0."""
        if self._hits is None or self._hits[0] != len(self):
            self._hits = (len(self), self._search())
        return self._hits[1]

    def _search(self) -> F64:
        embeddings, target = self.tensor("embeddings"), self.tensor("target")
        gallery = torch.from_numpy(np.flatnonzero(self.labelled)).to(embeddings.device)
        queries = torch.from_numpy(np.flatnonzero(self.queries)).to(embeddings.device)
        others, classes = embeddings[gallery], target[gallery]
        places = torch.searchsorted(gallery, queries)  # of each query in the gallery
        hits = np.zeros(len(self))
        if not len(queries):
            return hits
        step = max(1, CHUNK // len(others))
        for start in range(0, len(queries), step):
            rows, own = queries[start : start + step], places[start : start + step]
            similarity = embeddings[rows] @ others.T
            similarity.scatter_(1, own[:, None], float("-inf"))
            nearest = similarity == similarity.amax(1, keepdim=True)
            same = nearest & (classes == target[rows][:, None])
            right, ties = same.sum(1).cpu().numpy(), nearest.sum(1).cpu().numpy()
            hits[rows.cpu().numpy()] = right / ties
        return hits

    def _compute(self) -> dict[str, float]:
        return {"recall_at_1": 100 * exact_sum(self.hits()) / self.count}

    def per_image(self) -> dict[str, NDArray[Any]]:
        return {"sum": self.hits(), "count": self.queries.astype(np.float64)}

    def per_class(self) -> tuple[ClassScores, ...]:
        """The recall@1 of the queries of each class."""
        queries = self.queries
        target, hits = self.array("target")[queries], self.hits()[queries]
        sizes = [(label, hits[target == i]) for i, label in enumerate(self.task.classes)]
        return tuple(
            ClassScores(label, len(own), recall=exact_sum(own) / len(own) if len(own) else None)
            for label, own in sizes
        )


def _std(values: F64) -> float:
    if not len(values) or (values == values[0]).all():
        return 0.0
    mean = exact_sum(values) / len(values)
    return math.sqrt(exact_sum((values - mean) ** 2) / len(values))


def average_precision(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Return the area under precision over recall of one class that at least one image has."""
    order = np.argsort(-scores)
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal scores
    hits = true[order].cumsum()[last]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last + 1)).sum() / hits[-1])
