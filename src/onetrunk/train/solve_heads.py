"""One linear head: solved for every L2 strength of a grid, the best on validation kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.data.split import as_tensor
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.errors import BadInput
from onetrunk.eval.accumulator import Scores
from onetrunk.eval.metrics import as_error, headline, scores_of
from onetrunk.nn.heads import Embed, Numbers
from onetrunk.store.atomic import atomic
from onetrunk.store.run_folder import RunFolder
from onetrunk.store.tensors import read_tensors, write_tensors
from onetrunk.train.features import Features
from onetrunk.train.interrupt import Stop, stopped
from onetrunk.train.linear_heads import (
    CONTRAST_GRID,
    CONTRAST_USUAL,
    GRID,
    USUAL,
    Design,
    Solved,
    classify,
    contrast,
    multilabel,
    ridge,
)
from onetrunk.train.losses import class_weights


@dataclass(frozen=True)
class Chosen:
    """A task's head, and how its λ was chosen."""

    solved: Solved
    grid: tuple[tuple[float, float], ...]  # λ, headline error on validation (NaN: not defined)
    seconds: float


@dataclass
class Head:
    """One task's head, with the features that it is evaluated on."""

    module: nn.Module
    task: Task
    domain: Domain
    evaluated: Features

    def learn(self, on: Features, train: Train, seed: int, stop: Stop, run: Path) -> Chosen:
        """Solve it for every λ of the grid, keep the one that validation likes best."""
        began = time.monotonic()
        embed = self.task.kind == "embed"
        grid: Sequence[float] = CONTRAST_GRID if embed else GRID
        if math.isnan(self.error()):
            grid = (CONTRAST_USUAL if embed else USUAL,)
        best, least, seen = None, math.inf, []
        for solved in self.solve(on, grid, train, seed):
            self.take(solved)
            error = self.error()
            seen.append((solved.l2, error))
            if best is None or error < least:
                best, least = solved, error
            if stop.asked and len(seen) < len(grid):
                unit = f"{self.domain.name}/{self.task.name}"
                raise stopped(f"at the head of {unit}", run, "features and finished heads")
        assert best is not None
        return Chosen(best, tuple(seen), time.monotonic() - began)

    def solve(
        self, on: Features, grid: Sequence[float], train: Train, seed: int
    ) -> Iterator[Solved]:
        """The optimum for each λ, over the training images that have a label (some have)."""
        task, device = self.task, next(self.module.parameters()).device
        device = torch.device("cpu") if device.type == "mps" else device  # it has no doubles
        target = as_tensor(self.domain.train.label(task.name)[on.places])
        if task.kind == "regress":
            known = ~target.isnan().any(1)
        else:
            known = (target != NO_LABEL).all(1) if task.kind == "multilabel" else target != NO_CLASS
        rows, target = np.flatnonzero(known.numpy()), target[known]
        x = Design(on.rows, rows, device, task.kind != "embed")
        if isinstance(self.module, Embed):
            return contrast(x, target, self.module.linear.out_features, grid, seed)
        if isinstance(self.module, Numbers):
            return ridge(x, (target - self.module.mean.cpu()) / self.module.std.cpu(), grid)
        if task.kind == "multilabel":
            return multilabel(x, target, grid)
        weights = class_weights(self.domain, task) if train.class_weights == "balanced" else None
        return classify(x, target, weights, len(task.classes), grid)

    @torch.no_grad()
    def take(self, solved: Solved) -> None:
        """These are the head's weights."""
        linear = self.module.linear if isinstance(self.module, Embed) else self.module
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(solved.weight)
        if linear.bias is not None:
            linear.bias.copy_(solved.bias)

    def run_evaluation(self) -> Scores:
        """Scores on validation, by the features in the batches of `evaluate`."""
        scores, like = scores_of(self.task), next(self.module.parameters())
        labels = self.domain.val.label(self.task.name)[self.evaluated.places]
        with torch.inference_mode():
            for batch in self.evaluated.batches:
                rows = torch.from_numpy(np.array(self.evaluated.rows[batch])).to(like)
                scores.update(self.module(rows), as_tensor(labels[batch]))
        return scores

    def error(self) -> float:
        """The headline where lower is better; NaN where no validation image defines it."""
        found = self.run_evaluation().compute().get(headline(self.task.kind).name, math.nan)
        return as_error(self.task.kind, found)


def keep(chosen: Chosen, path: Path, digest: str, run: RunFolder) -> None:
    """Write it down, with the features that it is for."""
    solved = chosen.solved
    gradient = math.nan if solved.gradient is None else solved.gradient
    numbers = [solved.l2, gradient, chosen.seconds]
    tensors = {
        "weight": solved.weight,
        "bias": solved.bias,
        "numbers": torch.tensor(numbers, dtype=torch.float64),
        "grid": torch.tensor(chosen.grid, dtype=torch.float64),
        "of": torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8),
    }
    with run.writing(f"the head {path.name}"), atomic(path) as file:
        write_tensors(file, tensors)


def kept(path: Path, digest: str) -> Chosen | None:
    """A head that was solved before the run was killed, on these very features."""
    try:
        found = read_tensors(path)
        if bytes(found["of"].tolist()).hex() != digest:
            return None
        l2, gradient, seconds = found["numbers"].tolist()
        end = None if math.isnan(gradient) else gradient
        solved = Solved(l2, found["weight"], found["bias"], end)
        return Chosen(solved, tuple((a, b) for a, b in found["grid"].tolist()), seconds)
    except (OSError, BadInput, KeyError, ValueError):
        return None
