"""Train heads on a frozen trunk, the cheapest baseline (`train.frozen`).

Heads on pooled features are linear. So features are computed once (features.py), and the heads are
solved on them in double precision (linear_heads.py): no augmentation, each domain with its own size
and normalization. Of a grid of L2 strengths λ, the one with the lowest headline validation error is
kept, the stronger one in a tie (as Kornblith et al. 2019 evaluate trunks). Decoders of dense tasks
are trained by the ordinary loop, from images through the frozen trunk in evaluation mode.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.metrics import as_error, headline, scores_of
from onetrunk.eval.metrics.scores import Scores
from onetrunk.eval.result import TaskResult
from onetrunk.eval.table import Row, Table, number, spaced
from onetrunk.nn.heads import Embed, Numbers, Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.store.atomic import atomic
from onetrunk.store.run_folder import METRICS, RunFolder
from onetrunk.store.tensors import read_tensors, write_tensors
from onetrunk.train.device import deterministic
from onetrunk.train.features import FOLDER, Features, compute_features, linear_of
from onetrunk.train.interrupt import Stop, stoppable, stopped
from onetrunk.train.linear_heads import (
    CONTRAST_DEFAULT,
    CONTRAST_GRID,
    DEFAULT,
    GRID,
    Design,
    Solution,
    classify,
    contrast,
    multilabel,
    ridge,
)
from onetrunk.train.loggers import Logger
from onetrunk.train.loop import fit
from onetrunk.train.losses import class_weights
from onetrunk.train.selection import Selection


def fit_heads(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    run: RunFolder,
    logger: Logger,
    *,
    part: str = "",
    device: torch.device,
    seed: int = 0,
) -> Selection:
    """Train only heads and decoders; the arguments are those of `fit`."""
    check_heads(model)
    model.to(device)
    logged = _logged_units(run)
    rows: list[Row] = []
    with stoppable() as stop, deterministic(train.deterministic, device):
        for domain in domains:
            rows += _fit_linear(model, domain, train, run, stop, part, seed, logged)
    dense = [domain for domain in domains if any(task.dense for task in domain.tasks)]
    selection, step = Selection(), 0
    if dense:
        names = ", ".join(domain.name for domain in dense)
        say(f"training decoders on the frozen trunk: {names}")
        with only_decoders_trainable(model, dense):
            step = fit(model, dense, train, run, logger, part=part, device=device, seed=seed).step
        rows = list(evaluate(model, domains, "val", intervals=False).rows)
    selection.update(step, Table(tuple(rows), "val"))
    return selection


def check_heads(model: Universal) -> None:
    """Refuse heads that are not linear (user-defined ones), and heads that domains share."""
    for name, card in model.domains.items():
        for task in card.tasks:
            head = model.heads_of(name).head(task.name)
            if not task.dense and type(head) not in (Pooled, Numbers, Embed):
                shared = model.trunk.sharing == "full"
                raise BadInput(
                    f"train.frozen: expected a linear, unshared head for {name}/{task.name}",
                    got="a shared head" if shared else type(head).__name__,
                    try_="sharing = 'deep'" if shared else "train.frozen = false",
                )


@contextmanager
def only_decoders_trainable(model: Universal, domains: Sequence[Domain]) -> Iterator[None]:
    """Let only the decoders and dense heads of these domains require gradients in the block."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    for domain in domains:
        heads = model.heads_of(domain.name)
        own = [heads.head(task.name) for task in domain.tasks if task.dense]
        for module in [*own, *([heads.decoder] if heads.decoder is not None else [])]:
            module.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trainable in before:
            parameter.requires_grad_(trainable)


def _fit_linear(
    model: Universal,
    domain: Domain,
    train: Train,
    run: RunFolder,
    stop: Stop,
    part: str,
    seed: int,
    logged: set[str],
) -> list[Row]:
    """Solve a domain's linear heads; return their validation scores."""
    card = model.domains[domain.name]
    tasks = [task for task in card.tasks if not task.dense]
    if not tasks:
        return []
    features = compute_features(model, domain, "train", run, stop)
    val = compute_features(model, domain, "val", run, stop)
    seconds = features.seconds + val.seconds  # logged with the first head
    rows: list[Row] = []
    strengths: dict[str, float] = {}
    for task in tasks:
        unit = f"{domain.name}/{task.name}"
        head = LinearHead(model.heads_of(domain.name).head(task.name), task, domain, val)
        path = run.path / FOLDER / domain.name / f"{task.name}.safetensors"
        chosen = load_solution(path, features.digest)
        if chosen is None:
            chosen = head.choose(features, train, seed, stop, run.path)
            save_solution(chosen, path, features.digest, run)
        head.load(chosen.solution)
        l2 = strengths[task.name] = chosen.solution.l2
        result = TaskResult(domain.name, task, domain.val, head.evaluate(), val.places)
        task_rows = result.rows(False)
        rows += task_rows
        headlines = [row for row in task_rows if row.headline]
        if unit not in logged:
            record = {
                "step": 0,
                "part": part,
                "frozen": unit,
                "l2": l2,
                "grid": [[each, None if math.isnan(e) else e] for each, e in chosen.grid],
                "gradient": chosen.solution.gradient,
                "val": {f"{unit}/{row.metric}": row.value for row in headlines},
                "seconds": round(seconds + chosen.seconds, 3),
            }
            run.log(record)
        if stop.requested:
            raise stopped(f"after the head of {unit}", run.path)
        seconds = 0.0
        shown = [f"{r.metric} {number(r.value, r.unit)}{spaced(r.unit)}" for r in headlines]
        say(f"{unit}: L2 {l2:g}; validation {', '.join(shown) or 'has no labels: default L2'}")
    provenance = {**card.provenance, "frozen": True, "l2": strengths}
    model.domains[domain.name] = card.with_record(provenance, card.scores)
    return rows


def _logged_units(run: RunFolder) -> set[str]:
    """Return the units whose heads are in metrics.jsonl already."""
    try:
        lines = (run.path / METRICS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return set()
    return {unit for line in lines if (unit := json.loads(line).get("frozen"))}


@dataclass(frozen=True)
class ChosenSolution:
    """The solution with the lowest validation error, and the errors of the whole grid."""

    solution: Solution
    grid: tuple[tuple[float, float], ...]  # λ, headline error on validation (NaN: not defined)
    seconds: float


@dataclass
class LinearHead:
    """The head of one task, with the features that it is evaluated on."""

    module: nn.Module
    task: Task
    domain: Domain
    val: Features

    def choose(
        self, features: Features, train: Train, seed: int, stop: Stop, run: Path
    ) -> ChosenSolution:
        """Solve for every λ of the grid, and choose by the validation error."""
        began = time.monotonic()
        embed = self.task.kind == "embed"
        grid: Sequence[float] = CONTRAST_GRID if embed else GRID
        if math.isnan(self.error()):
            grid = (CONTRAST_DEFAULT if embed else DEFAULT,)
        best, lowest, tried = None, math.inf, []
        unit = f"{self.domain.name}/{self.task.name}"
        with Track(f"solving the head of {unit} for each L2 strength", len(grid)) as track:
            for solution in self.solve(features, grid, train, seed):
                self.load(solution)
                error = self.error()
                tried.append((solution.l2, error))
                if best is None or error < lowest:
                    best, lowest = solution, error
                if stop.requested and len(tried) < len(grid):
                    raise stopped(f"at the head of {unit}", run)
                track()
        if best is None:
            raise ValueError("the grid is empty")
        return ChosenSolution(best, tuple(tried), time.monotonic() - began)

    def solve(
        self,
        features: Features,
        grid: Sequence[float],
        train: Train,
        seed: int,
    ) -> Iterator[Solution]:
        """Yield the optimum for each λ, over the training images with a label."""
        task, device = self.task, next(self.module.parameters()).device
        device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        target = as_tensor(self.domain.train.label(task.name)[features.places])
        if task.kind == "regress":
            known = ~target.isnan().any(1)
        else:
            known = (target != NO_LABEL).all(1) if task.kind == "multilabel" else target != NO_CLASS
        rows, target = np.flatnonzero(known.numpy()), target[known]
        x = Design(features.rows, rows, device, task.kind != "embed")
        if isinstance(self.module, Embed):
            return contrast(x, target, self.module.linear.out_features, grid, seed)
        if isinstance(self.module, Numbers):
            return ridge(x, (target - self.module.mean.cpu()) / self.module.std.cpu(), grid)
        if task.kind == "multilabel":
            return multilabel(x, target, grid)
        weights = class_weights(self.domain, task) if train.class_weights == "balanced" else None
        return classify(x, target, weights, len(task.classes), grid)

    @torch.no_grad()
    def load(self, solution: Solution) -> None:
        """Copy a solution into the head."""
        linear = linear_of(self.module)
        linear.weight.copy_(solution.weight)
        if linear.bias is not None:
            linear.bias.copy_(solution.bias)

    def evaluate(self, features: Features | None = None, split: str = "val") -> Scores:
        """Return the scores on a split, computed in the batches of an evaluation.

        Args:
            features: The features of the split; by default those of validation.
            split: The name of the split.
        """
        features = self.val if features is None else features
        scores, like = scores_of(self.task), next(self.module.parameters())
        labels = self.domain.splits[split].label(self.task.name)[features.places]
        with torch.inference_mode():
            for batch in features.batches:
                rows = torch.from_numpy(np.array(features.rows[batch])).to(like)
                scores.update(self.module(rows), as_tensor(labels[batch]))
        return scores

    def error(self) -> float:
        """Return the headline validation error; NaN where no image has the labels for it."""
        value = self.evaluate().compute().get(headline(self.task.kind).name, math.nan)
        return as_error(self.task.kind, value)


def save_solution(chosen: ChosenSolution, path: Path, digest: str, run: RunFolder) -> None:
    """Save a head's solution, with the digest of the features that it was solved on."""
    solution = chosen.solution
    gradient = math.nan if solution.gradient is None else solution.gradient
    numbers = [solution.l2, gradient, chosen.seconds]
    tensors = {
        "weight": solution.weight,
        "bias": solution.bias,
        "numbers": torch.tensor(numbers, dtype=torch.float64),
        "grid": torch.tensor(chosen.grid, dtype=torch.float64),
        "digest": torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8),
    }
    with run.writing(f"the head {path.name}"), atomic(path) as file:
        write_tensors(file, tensors)


def load_solution(path: Path, digest: str) -> ChosenSolution | None:
    """Return the solution that was saved for these features before the run was killed, if any."""
    try:
        tensors = read_tensors(path)
        if bytes(tensors["digest"].tolist()).hex() != digest:
            return None
        l2, gradient, seconds = tensors["numbers"].tolist()
        solution = Solution(
            l2, tensors["weight"], tensors["bias"], None if math.isnan(gradient) else gradient
        )
        return ChosenSolution(solution, tuple((a, b) for a, b in tensors["grid"].tolist()), seconds)
    except (OSError, BadInput, KeyError, ValueError):
        return None
