"""The choice of a method for a domain with few images, by cross-validation (Stone 1974).

With fewer than 8 images per class, a validation split would be too small. So validation images are
trained on as well, and every method is evaluated on folds, in which each image is held out once.
The methods, simplest first, are class means (class_means.py), a linear head, and adapters that
start from the class means of their fold. The method with the fewest errors (the simplest in a tie)
is chosen and trained on all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.eval.feature_map import pooled_features
from onetrunk.nn.heads import Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.fewshot.class_means import class_means
from onetrunk.train.fewshot.folds import Rows, Subset, make_folds, train_on_all
from onetrunk.train.linear_heads import Design, Solution, classify
from onetrunk.train.new_domain.trials import HEADS_ONLY, AdapterKind, TrialRunner

FEW_STEPS, FEW_BATCH = 60, 32  # of adapters, by default
L2 = (1e1, 1.0, 1e-1, 1e-2, 1e-3)  # strengths of the linear head's penalty


@dataclass(frozen=True)
class Method:
    """A method for few images.

    Args:
        name: Shown in messages and records.
        kind: The adapters that are trained.
        l2: The penalty of a linear head; None for class means and adapters.
        error: The error in percent on held-out images; None if nothing could be held out.
    """

    name: str
    kind: AdapterKind
    l2: float | None
    error: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the record for the scores."""
        rank = self.kind.rank
        return {"method": self.name, "adapters": self.kind.name, "rank": rank, "error": self.error}


def choose_method(
    runner: TrialRunner, kinds: Sequence[AdapterKind]
) -> tuple[Method, list[Method], str]:
    """Train the method with the lowest error on held-out images, and keep its pack.

    Args:
        kinds: The adapters that are candidates besides class means and linear heads.

    Returns:
        The method, all methods, and the reason for the choice.
    """
    domain, folds = runner.domain, make_folds(runner.domain, runner.recipe.seed)
    frozen = runner.scratch_model(HEADS_ONLY)
    features = FrozenFeatures.of(frozen, train_on_all(domain))
    if not folds:
        method = Method("class means", HEADS_ONLY, None, None)
        _keep_heads(runner, frozen, features, method)
        return method, [method], "class means: no class has two images, so none can be held out"
    methods = []
    for l2 in (None, *L2):
        error = _heads_error(features, folds, l2)
        name = "class means" if l2 is None else f"linear head, L2 {l2:g}"
        methods.append(Method(name, HEADS_ONLY, l2, error))
    for kind in kinds:
        if kind != HEADS_ONLY:
            methods.append(Method(kind.label, kind, None, _adapters_error(runner, kind, folds)))
    best = min(methods, key=lambda method: method.error or 0.0)  # the simplest in a tie
    held_out = sum(len(fold.val) for fold in folds)
    reason = (
        f"{best.name}: {best.error:.1f} % error on {held_out} images held out in {len(folds)} "
        f"folds (class means {methods[0].error:.1f} %)"
    )
    if best.kind == HEADS_ONLY:
        _keep_heads(runner, frozen, features, best)
    else:
        _keep_adapters(runner, best)
    return best, methods, reason


Counts = Mapping[str, Sequence[int]]  # by task: wrong predictions, and labels


def _count_errors(logits: Mapping[str, Tensor], fold: Subset) -> dict[str, list[int]]:
    """Count the wrong predictions and the labels of the held-out images."""
    counts = {}
    for task in fold.tasks:
        predicted = logits[task.name].argmax(1).cpu().numpy()
        labels = fold.val.label(task.name)
        labelled = labels != NO_CLASS
        counts[task.name] = [int((predicted != labels)[labelled].sum()), int(labelled.sum())]
    return counts


def _error(folds: Sequence[Counts]) -> float:
    """Return the error over all folds in percent, averaged over tasks."""
    totals = {task: np.sum([fold[task] for fold in folds], axis=0) for task in folds[0]}
    return float(np.mean([100 * int(n) / max(1, int(of)) for n, of in totals.values()]))


# -- heads on frozen features


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of all images of a domain, by their places in its index."""

    rows: Rows
    features: Tensor

    @classmethod
    def of(cls, model: Universal, subset: Subset) -> FrozenFeatures:
        """Compute the features of the training images, without augmentation."""
        places = np.arange(len(subset.train))
        parts = [places[i : i + FEW_BATCH] for i in range(0, len(places), FEW_BATCH)]
        images = [subset.train.batch(part)[0] for part in parts]
        return cls(subset.train.rows, pooled_features(model, subset.name, images))

    def take(self, rows: Rows) -> Tensor:
        """Return the features of these images."""
        return self.features[torch.from_numpy(np.searchsorted(self.rows, rows))]


def solve_head(
    features: FrozenFeatures, split: Split, task: Task, l2: float | None
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a head for the labelled images of a split.

    Args:
        l2: The penalty of a linear head; None for class means.
    """
    labels = split.label(task.name).astype(np.int64)
    labelled = np.flatnonzero(labels != NO_CLASS)
    x, target = features.take(split.rows[labelled]), torch.from_numpy(labels[labelled])
    if l2 is None:
        return class_means(x, target, len(task.classes))
    design = Design(x.numpy(), np.arange(len(labelled)), torch.device("cpu"))
    solution: Solution = next(iter(classify(design, target, None, len(task.classes), (l2,))))
    return solution.weight, solution.bias


def _heads_error(features: FrozenFeatures, folds: Sequence[Subset], l2: float | None) -> float:
    """Return the error of heads in percent."""
    counts = []
    for fold in folds:
        x = features.take(fold.val.rows).double()
        predicted = {}
        for task in fold.tasks:
            weight, bias = solve_head(features, fold.train, task, l2)
            predicted[task.name] = x @ weight.T + bias
        counts.append(_count_errors(predicted, fold))
    return _error(counts)


def _set_heads(
    model: Universal, domain: Domain, features: FrozenFeatures, split: Split, l2: float | None
) -> None:
    for task in domain.tasks:
        head: nn.Module = model.heads_of(domain.name).head(task.name)
        if isinstance(head, Pooled):
            weight, bias = solve_head(features, split, task, l2)
            with torch.no_grad():
                head.weight.copy_(weight)
                head.bias.copy_(bias)


def _keep_heads(
    runner: TrialRunner, model: Universal, features: FrozenFeatures, method: Method
) -> None:
    """Save the chosen head, solved for all images, as the pack without adapters."""
    if runner.pack_path(HEADS_ONLY).exists():
        return
    domain = runner.domain
    _set_heads(model, domain, features, train_on_all(domain).train, method.l2)
    runner.keep(model, HEADS_ONLY, 0.0, 0, 0.0)


# -- adapters


def _trained(runner: TrialRunner, kind: AdapterKind, subset: Subset, part: str) -> Universal:
    """Return a scratch model that is trained on a subset, starting from its class means."""
    model = runner.scratch_model(kind)
    features = FrozenFeatures.of(model, train_on_all(runner.domain))
    _set_heads(model, subset, features, subset.train, None)
    runner.train(model, kind, part, subset)
    return model


def _adapters_error(runner: TrialRunner, kind: AdapterKind, folds: Sequence[Subset]) -> float:
    """Return the error of adapters in percent; the counts of finished folds are recorded."""
    parts = [f"{kind.label}-fold-{k}" for k in range(len(folds))]
    for part, fold in zip(parts, folds, strict=True):
        if part not in runner.done:
            model = _trained(runner, kind, fold, part).eval()
            runner.record(part, _count_errors(_predict(model, fold), fold))
            runner.delete_checkpoints(part)
    say(f"{kind.label}: trained on {len(folds)} folds")
    return _error([runner.done[part] for part in parts])


def _predict(model: Universal, fold: Subset) -> dict[str, Tensor]:
    """Return the logits of the held-out images, by task."""
    like = next(model.parameters())
    outputs = []
    with torch.inference_mode():
        for i in range(0, len(fold.val), FEW_BATCH):
            x, _ = fold.val.batch(np.arange(i, min(i + FEW_BATCH, len(fold.val))))
            outputs.append(model(x.to(like.device, like.dtype), domain=fold.name))
    return {task.name: torch.cat([out[task.name] for out in outputs]) for task in fold.tasks}


def _keep_adapters(runner: TrialRunner, method: Method) -> None:
    """Train the chosen adapters on all images, and save their pack."""
    part = method.kind.label
    if part in runner.done:
        return
    model = _trained(runner, method.kind, train_on_all(runner.domain), part)
    runner.keep(model, method.kind, method.error or 0.0, runner.recipe.train.steps or 0, 0.0)
