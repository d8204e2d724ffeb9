"""Nearest neighbour on pixels: what knowing the training images by heart is worth.

The floor under every figure: a network that does not beat it by far has learned little.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS
from onetrunk.errors import BadInput

CHUNK = 512  # images compared at once


@torch.no_grad()
def neighbour_error(domain: Domain, split: str = "test", task: str | None = None) -> float:
    """Error in percent where each image takes the class of its nearest training image
    (Euclidean, normalized pixels)."""
    named = [t.name for t in domain.tasks if t.kind == "classify"]
    if not named or (task is not None and task not in named):
        raise BadInput(f"{domain.name}: expected a classify task", got=task, available=named)
    task = named[0] if task is None else task
    known, known_labels = _labelled(domain.train, task)
    asked, labels = _labelled(domain.splits[split], task)
    if not len(asked) or not len(known):
        raise BadInput(f"{domain.name}: no labelled image in {split} or train", got=task)
    half = known.square().sum(1) / 2  # ‖x − k‖² = ‖x‖² − 2(x·k − ‖k‖²/2)
    nearest = torch.cat([(part @ known.T - half).argmax(1) for part in torch.split(asked, CHUNK)])
    return float(100 * np.mean(known_labels[nearest.numpy()] != labels))


def _labelled(split: Split, task: str) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Pixels (n, 3·H·W) and classes of the images that have one."""
    labels = split.label(task).astype(np.int64)
    places = np.flatnonzero(labels != NO_CLASS)
    if not len(places):
        return torch.zeros(0, 1), labels[places]
    images, _ = split.batch(places)
    return images.reshape(len(places), -1), labels[places]
