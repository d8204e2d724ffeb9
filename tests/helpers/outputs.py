"""Random outputs and targets of every kind, for the tests of scores and outcomes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onetrunk.data.task import NO_CLASS, NO_LABEL, NO_PIXEL, Task
from onetrunk.eval.metrics import scores_of

CLASSES = tuple("abcde")
TASKS = {
    "classify": Task("t", "classify", CLASSES),
    "multilabel": Task("t", "multilabel", CLASSES),
    "regress": Task("t", "regress", outputs=2),
    "segment": Task("t", "segment", CLASSES),
    "depth": Task("t", "depth"),
    "normals": Task("t", "normals"),
    "embed": Task("t", "embed", CLASSES),
}
SIZE = (5, 7)


def random_outputs(kind: str, count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return outputs and targets that agree more than by chance; some labels are missing."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    missing = torch.rand(count, generator=generator) < 0.2
    if kind in ("classify", "embed"):
        target = torch.randint(len(CLASSES), (count,), generator=generator)
        middles = normal(len(CLASSES), 8)
        out = normal(count, len(CLASSES)) + 2 * torch.eye(len(CLASSES))[target]
        if kind == "embed":
            out = torch.nn.functional.normalize(normal(count, 8) + middles[target], dim=1)
        return out, target.masked_fill(missing, NO_CLASS)
    if kind == "multilabel":
        target = (torch.rand(count, len(CLASSES), generator=generator) < 0.3).to(torch.uint8)
        out = normal(count, len(CLASSES)) + 2 * target
        return out, target.masked_fill(missing[:, None], NO_LABEL)
    if kind == "regress":
        numbers = normal(count, 2) * torch.tensor([1.0, 50.0]) + 7
        return numbers + normal(count, 2), numbers.masked_fill(missing[:, None], math.nan)
    labelled = torch.rand(count, *SIZE, generator=generator) < 0.8
    labelled &= ~missing[:, None, None]
    if kind == "segment":
        map_ = torch.randint(len(CLASSES), (count, *SIZE), generator=generator)
        out = normal(count, len(CLASSES), *SIZE) + 2 * torch.eye(len(CLASSES))[map_].movedim(-1, 1)
        return out, map_.masked_fill(~labelled, NO_PIXEL).to(torch.uint8)
    if kind == "depth":
        far = torch.rand(count, *SIZE, generator=generator) * 9 + 0.5
        return (far + normal(count, *SIZE))[:, None], far * labelled
    up = torch.nn.functional.normalize(normal(count, 3, *SIZE), dim=1)
    out = torch.nn.functional.normalize(up + 0.3 * normal(count, 3, *SIZE), dim=1)
    return out, up * labelled[:, None]


def scored(
    kind: str, out: Tensor, target: Tensor, batch: int = 16, task: Task | None = None
) -> Any:
    """Return scores that were updated with these outputs, batch by batch."""
    scores = scores_of(task or TASKS[kind])
    for i in range(0, len(out), batch):
        scores.update(out[i : i + batch], target[i : i + batch])
    return scores
