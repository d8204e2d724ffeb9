"""Heads for few images on fixed features: class means, or a linear head with an L2 penalty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.eval.feature_map import pooled_features
from onetrunk.nn.heads import Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import tracked
from onetrunk.train.fewshot.class_means import class_means
from onetrunk.train.fewshot.folds import Rows, Subset
from onetrunk.train.linear_heads import Design, Solution, classify

L2 = (1e1, 1.0, 1e-1, 1e-2, 1e-3)  # strengths of the linear head's penalty
STRENGTHS = (None, *L2)  # the heads that are compared, the simplest first; None: class means
BATCH = 32  # images in a forward pass


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of all images of a domain, by their places in its index."""

    rows: Rows
    features: Tensor

    @classmethod
    def of(cls, model: Universal, subset: Subset) -> FrozenFeatures:
        """Compute the features of the training images, without augmentation."""
        places = np.arange(len(subset.train))
        parts = [places[i : i + BATCH] for i in range(0, len(places), BATCH)]
        listed = tracked(parts, f"features of {subset.name}: batches", len(parts))
        images = (subset.train.batch(part)[0] for part in listed)
        return cls(subset.train.rows, pooled_features(model, subset.name, images))

    def take(self, rows: Rows) -> Tensor:
        """Return the features of these images."""
        return self.features[torch.from_numpy(np.searchsorted(self.rows, rows))]


def head_name(l2: float | None) -> str:
    """Return the name of a head for messages."""
    return "class means" if l2 is None else f"linear head, L2 {l2:g}"


def solve_heads(
    features: FrozenFeatures, split: Split, task: Task, strengths: tuple[float | None, ...]
) -> dict[float | None, tuple[Tensor, Tensor]]:
    """Return weight and bias of a head for the labelled images of a split, by L2 penalty.

    Args:
        strengths: The penalties; None for class means.
    """
    labels = split.label(task.name).astype(np.int64)
    labelled = np.flatnonzero(labels != NO_CLASS)
    x, target = features.take(split.rows[labelled]), torch.from_numpy(labels[labelled])
    heads: dict[float | None, tuple[Tensor, Tensor]] = {}
    if None in strengths:
        heads[None] = class_means(x, target, len(task.classes))
    grid = [l2 for l2 in strengths if l2 is not None]
    if grid:
        design = Design(x.numpy(), np.arange(len(labelled)), torch.device("cpu"))
        solution: Solution
        for solution in classify(design, target, None, len(task.classes), grid):
            heads[solution.l2] = solution.weight, solution.bias
    return heads


def set_heads(
    model: Universal, domain: Domain, features: FrozenFeatures, split: Split, l2: float | None
) -> None:
    """Set the heads of a model to class means or linear heads of the images of a split."""
    for task in domain.tasks:
        head: nn.Module = model.heads_of(domain.name).head(task.name)
        if isinstance(head, Pooled):
            weight, bias = solve_heads(features, split, task, (l2,))[l2]
            with torch.no_grad():
                head.weight.copy_(weight)
                head.bias.copy_(bias)
