"""Nearest neighbour on pixels: a baseline that only memorizes the training images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS
from onetrunk.errors import BadInput

CHUNK = 512  # images compared at a time


@torch.no_grad()
def neighbour_error(domain: Domain, split: str = "test", task: str | None = None) -> float:
    """Return the error in percent of predicting the class of the nearest training image.

    Distances are Euclidean, between normalized pixels. `task`: by default the first classify task.
    """
    tasks = [t.name for t in domain.tasks if t.kind == "classify"]
    if not tasks or (task is not None and task not in tasks):
        raise BadInput(f"{domain.name}: expected a classify task", got=task, available=tasks)
    task = tasks[0] if task is None else task
    train, train_labels = _labelled(domain.train, task)
    images, labels = _labelled(domain.splits[split], task)
    if not len(images) or not len(train):
        raise BadInput(f"{domain.name}: expected labelled images in {split} and in train", got=task)
    half = train.square().sum(1) / 2  # ‖x − k‖² = ‖x‖² − 2(x·k − ‖k‖²/2)
    nearest = torch.cat([(part @ train.T - half).argmax(1) for part in torch.split(images, CHUNK)])
    return float(100 * np.mean(train_labels[nearest.numpy()] != labels))


def _labelled(split: Split, task: str) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return pixels (n, 3·H·W) and classes of the labelled images."""
    labels = split.label(task).astype(np.int64)
    places = np.flatnonzero(labels != NO_CLASS)
    if not len(places):
        return torch.zeros(0, 1), labels[places]
    images, _ = split.batch(places)
    return images.reshape(len(places), -1), labels[places]
