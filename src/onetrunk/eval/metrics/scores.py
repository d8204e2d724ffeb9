"""The base of the scores of every kind of task.

An update keeps a few numbers per image on the model's device and does not synchronize with it.
Sums over images are formed once, at the end, in float64 and correctly rounded (math.fsum), so a
score depends neither on the batches nor on the order of the images. Images without a label are not
counted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.metrics.by_class import ClassScores
from onetrunk.eval.metrics.calibration import Reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.eval.table import Better

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric's name, its unit, and whether lower or higher is better.

    `task_unit`: where the task has a unit, the metric is in that unit.
    """

    name: str
    unit: str = ""
    better: Better = "lower"
    task_unit: bool = False


@dataclass(frozen=True)
class ImagePrediction:
    """What is given and what is predicted for one image, in words; empty for maps."""

    given: str = ""
    predicted: str = ""
    confidence: float | None = None  # the probability of the predicted class


class Scores(ABC):
    """The scores of one task on one split: `update` with each batch, then `compute`.

    What each image contributes to the headline is kept as arrays with one row per image, named by
    `outcome_arrays`; `headlines` turns sums over images into the headline (see outcomes.py).
    """

    kind: ClassVar[Kind]
    metrics: ClassVar[tuple[Metric, ...]]  # the headline first
    outcome_arrays: ClassVar[tuple[str, ...]] = ("sum", "count")  # empty: no sum over images
    share_of_images: ClassVar[bool] = False  # the headline is 100 · Σ sum / Σ count over images
    needs: ClassVar[str] = "an image with a label"  # without which the headline is undefined

    def __init__(self, task: Task) -> None:
        self.task = task
        self._batches: dict[str, list[Tensor]] = {}

    def update(self, out: Tensor, target: Tensor) -> None:
        """Add a batch: the head's outputs and the split's targets."""
        target = target.to(out.device, non_blocking=True)
        out = out.detach()
        self._check_shape(out, target)
        self._keep({"finite": torch.isfinite(out).flatten(1).all(1)})
        self._add(out, target)

    @abstractmethod
    def _add(self, out: Tensor, target: Tensor) -> None:
        """Store what the metrics need of each image, and which images are `labelled`."""

    @abstractmethod
    def _compute(self) -> dict[str, float]:
        """Return the metrics by name, without those that are undefined here.

        At least one image counts.
        """

    @abstractmethod
    def per_image(self) -> dict[str, NDArray[Any]]:
        """Return what each image contributes to the headline, in the order of the updates."""

    def confusion(self) -> ConfusionMatrix | None:
        """Return the confusion matrix; None for a kind that has none."""
        return None

    def per_class(self) -> tuple[ClassScores, ...]:
        """Return the scores of each class; none for a kind without classes."""
        return ()

    def reliability(self) -> Reliability | None:
        """Return confidence against accuracy; None where there are no confidences."""
        return None

    def image_errors(self) -> F64 | None:
        """Return how wrong the prediction of each image is, in the order of the updates.

        It is NaN where an image is right or has no label. None for a kind without such a measure.
        """
        return None

    def predictions(self, images: Sequence[int]) -> list[ImagePrediction]:
        """Return what is given and predicted for some images, by their numbers in that order."""
        return [ImagePrediction() for _ in images]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which images have a label."""
        return self.array("labelled")

    @classmethod
    def headlines(cls, sums_RK: F64) -> F64:
        """Return the headline of each row of sums over images: K - 1 sums and a count."""
        means: F64 = (sums_RK[:, :-1] / sums_RK[:, -1:]).mean(1)
        return 100 * means if cls.share_of_images else means

    @property
    def count(self) -> int:
        """The number of images that the headline is computed from."""
        return int(self.labelled.sum()) if self._batches else 0

    def compute(self) -> dict[str, float]:
        """Return the metrics by name; empty where no image has a label."""
        if not self._batches:
            return {}
        not_finite = self.not_finite()
        if len(not_finite):
            raise Failed(
                f"task {self.task.name}: outputs are not finite for {len(not_finite)} of "
                f"{len(self)} images",
                try_="a smaller learning rate, or an earlier checkpoint",
            )
        return self._compute() if self.count else {}

    def not_finite(self) -> NDArray[np.int64]:
        """Return the images, in the order of the updates, with NaN or infinite outputs."""
        return np.flatnonzero(~self.array("finite"))

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches.get("finite", ()))

    def _keep(self, values: Mapping[str, Tensor]) -> None:
        """Append the rows of a batch, one per image, to each of the named tensors."""
        for name, value in values.items():
            self._batches.setdefault(name, []).append(value)

    def tensor(self, name: str) -> Tensor:
        """Return what was stored under a name for all images."""
        batches = self._batches[name]
        if len(batches) > 1:
            batches[:] = [torch.cat(batches)]
        return batches[0]

    def array(self, name: str) -> NDArray[Any]:
        """Return what was stored under a name for all images, as an array."""
        array: NDArray[Any] = self.tensor(name).cpu().numpy()
        return array

    def _check_shape(self, out: Tensor, target: Tensor) -> None:
        """Refuse outputs of another shape, which a user-defined head may return."""
        map_size = target.shape[-2:] if self.task.dense else ()
        width = self.task.width or (out.shape[1] if out.ndim == 2 else 0)
        expected = (target.shape[0], width, *map_size)
        if tuple(out.shape) != expected:
            raise BadInput(
                f"task {self.task.name}: a {self.task.kind} head has outputs of shape "
                f"{shape_text(expected)}",
                got=shape_text(out.shape),
            )


def shape_text(shape: tuple[int, ...] | torch.Size) -> str:
    """Format a shape as `64×10`."""
    return "×".join(map(str, shape))


def to_double(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, or in float32 on devices without it."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def exact_sum(values: NDArray[Any]) -> float:
    """Return the correctly rounded sum, which is the same in any order."""
    return math.fsum(values.tolist())
