"""Outputs and targets of every kind of task, for the tests of scores and outcomes."""

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


def made(kind: str, count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return outputs and targets that agree better than chance; some labels are missing."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance)

    missing = torch.rand(count, generator=chance) < 0.2
    if kind in ("classify", "embed"):
        target = torch.randint(len(CLASSES), (count,), generator=chance)
        middles = normal(len(CLASSES), 8)
        out = normal(count, len(CLASSES)) + 2 * torch.eye(len(CLASSES))[target]
        if kind == "embed":
            out = torch.nn.functional.normalize(normal(count, 8) + middles[target], dim=1)
        return out, target.masked_fill(missing, NO_CLASS)
    if kind == "multilabel":
        truth = (torch.rand(count, len(CLASSES), generator=chance) < 0.3).to(torch.uint8)
        out = normal(count, len(CLASSES)) + 2 * truth
        return out, truth.masked_fill(missing[:, None], NO_LABEL)
    if kind == "regress":
        numbers = normal(count, 2) * torch.tensor([1.0, 50.0]) + 7
        return numbers + normal(count, 2), numbers.masked_fill(missing[:, None], math.nan)
    here = torch.rand(count, *SIZE, generator=chance) < 0.8
    here &= ~missing[:, None, None]
    if kind == "segment":
        map_ = torch.randint(len(CLASSES), (count, *SIZE), generator=chance)
        out = normal(count, len(CLASSES), *SIZE) + 2 * torch.eye(len(CLASSES))[map_].movedim(-1, 1)
        return out, map_.masked_fill(~here, NO_PIXEL).to(torch.uint8)
    if kind == "depth":
        far = torch.rand(count, *SIZE, generator=chance) * 9 + 0.5
        return (far + normal(count, *SIZE))[:, None], far * here
    up = torch.nn.functional.normalize(normal(count, 3, *SIZE), dim=1)
    out = torch.nn.functional.normalize(up + 0.3 * normal(count, 3, *SIZE), dim=1)
    return out, up * here[:, None]


def scored(kind: str, out: Tensor, target: Tensor, batch: int = 16, task: Any = None) -> Any:
    scores = scores_of(task or TASKS[kind])
    for i in range(0, len(out), batch):
        scores.update(out[i : i + batch], target[i : i + batch])
    return scores
