"""What the scores of every kind share: outputs evaluated image by image, kept until all have come.

An update leaves a few numbers an image on the model's device and waits for nothing; sums over
images are formed once, at the end, in float64 and without rounding (math.fsum), so a score depends
neither on the batches nor on the order in which images came. Images without a label count nowhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed

F64 = NDArray[np.float64]


class Scores(ABC):
    """The scores of one task of one split: `update` with each batch, then `compute`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._held: dict[str, list[Tensor]] = {}

    def update(self, out: Tensor, target: Tensor) -> None:
        """A batch's outputs as the heads give them, and targets as a split gives them."""
        target = target.to(out.device, non_blocking=True)
        out = out.detach()
        self._check(out, target)
        self.hold({"finite": torch.isfinite(out).flatten(1).all(1)})
        self.run_evaluation(out, target)

    @abstractmethod
    def run_evaluation(self, out: Tensor, target: Tensor) -> None:
        """Hold what is to be known of each image."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Metrics by name, over at least one image; one that is not defined here is left out."""

    @abstractmethod
    def parts(self) -> dict[str, NDArray[Any]]:
        """What the headline is made of, image by image in order of arrival; see outcomes.py."""

    @property
    @abstractmethod
    def labelled(self) -> NDArray[np.bool_]:
        """Which images have a label."""

    @property
    def count(self) -> int:
        """Images that the headline is over."""
        return int(self.labelled.sum()) if self._held else 0

    def compute(self) -> dict[str, float]:
        """Metrics by name; empty where no image has a label."""
        if not self._held:
            return {}
        broken = self.broken()
        if len(broken):
            raise Failed(
                f"task {self.task.name}: outputs are not finite for {len(broken)} of "
                f"{len(self)} images; try: a smaller learning rate, or an earlier checkpoint"
            )
        return self.measure() if self.count else {}

    def broken(self) -> NDArray[np.int64]:
        """Images, by arrival, whose outputs are not finite numbers."""
        return np.flatnonzero(~self.held("finite"))

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._held.get("finite", ()))

    def hold(self, values: Mapping[str, Tensor]) -> None:
        """Keep these, one row an image."""
        for name, value in values.items():
            self._held.setdefault(name, []).append(value)

    def tensor(self, name: str) -> Tensor:
        """What was held under a name, of all images."""
        batches = self._held[name]
        if len(batches) > 1:
            batches[:] = [torch.cat(batches)]
        return batches[0]

    def held(self, name: str) -> NDArray[Any]:
        """The same, as an array."""
        array: NDArray[Any] = self.tensor(name).cpu().numpy()
        return array

    def _check(self, out: Tensor, target: Tensor) -> None:
        """A head of the user's own may give anything."""
        inside = target.shape[-2:] if self.task.dense else ()
        wide = self.task.width or (out.shape[1] if out.ndim == 2 else 0)
        expected = (target.shape[0], wide, *inside)
        if tuple(out.shape) != expected:
            raise BadInput(
                f"task {self.task.name}: a {self.task.kind} head gives {shape(expected)}",
                got=shape(out.shape),
            )


def shape(sizes: tuple[int, ...] | torch.Size) -> str:
    """`64×10`"""
    return "×".join(map(str, sizes))


def wide(tensor: Tensor) -> Tensor:
    """In double precision, where the device has it."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def total(values: NDArray[Any]) -> float:
    """The sum, exact before it is rounded once: the same in any order."""
    return math.fsum(values.tolist())
