"""The choice of a method for a domain with few images, by cross-validation (Stone 1974).

With few images, a validation split is too small to choose by, and may lack classes. So validation
images are trained on as well, and every method is evaluated on folds, in which each image is held
out once. The methods, simplest first, are class means (class_means.py), linear heads with several
penalties, and what is trained with gradients: norms and adapters, which start from the best head
of their fold. (Kumar et al. 2022: a head that is fitted first distorts the features less.) The
method with the fewest errors, the simplest in a tie, is then trained on all images.

Heads are solved on features that are computed once, so they are evaluated on all folds. The others
are trained fold by fold, and one that is clearly worse than the best so far on the same held-out
images is dropped (a race: Maron & Moore 1994). The race ends when one method is left, or after
enough held-out images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onetrunk.nn.universal import Universal
from onetrunk.progress import say, tracked
from onetrunk.train.fewshot.errors_on_folds import FoldErrors, error_of, is_clearly_worse
from onetrunk.train.fewshot.folds import Subset, make_folds, train_on_all
from onetrunk.train.fewshot.heads import (
    BATCH,
    STRENGTHS,
    FrozenFeatures,
    head_name,
    set_heads,
    solve_heads,
)
from onetrunk.train.new_domain.trials import HEADS_ONLY, AdapterKind, TrialRunner

DEVIATIONS = 1.5  # standard errors by which a method has to be worse to be dropped
MIN_HELD_OUT = 20  # images before a method is dropped
ENOUGH = 300  # held-out images after which the race ends, as their errors are precise enough


@dataclass(frozen=True)
class Method:
    """A method for few images, and its errors.

    Args:
        name: Shown in messages and records.
        kind: The adapters that are trained.
        l2: The penalty of a linear head, or of the head that training starts from; None for class
            means.
        folds: The errors on held-out images, for each fold it was evaluated on.
    """

    name: str
    kind: AdapterKind
    l2: float | None
    folds: tuple[FoldErrors, ...] = ()

    @property
    def error(self) -> float | None:
        """The error in percent on held-out images; None if nothing could be held out."""
        return error_of(self.folds) if self.folds else None

    @property
    def held_out(self) -> int:
        """The number of held-out images with a label of the first task."""
        return sum(len(next(iter(fold.wrong.values()))) for fold in self.folds)

    def to_json(self) -> dict[str, Any]:
        """Return the record for the scores."""
        return {
            "method": self.name,
            "adapters": self.kind.name,
            "rank": self.kind.rank,
            "error": self.error,
            "images": self.held_out,
        }


@dataclass
class FewShot:
    """The methods for one domain with few images."""

    runner: TrialRunner
    folds: list[Subset] = field(init=False)
    everything: Subset = field(init=False)

    def __post_init__(self) -> None:
        domain = self.runner.domain
        self.folds = make_folds(domain, self.runner.recipe.seed)
        self.everything = train_on_all(domain)
        self._features: dict[bool, FrozenFeatures] = {}

    def features(self, kind: AdapterKind, model: Universal | None = None) -> FrozenFeatures:
        """Return the features of all images before training; slots without adapters share them."""
        adapted = kind.adapted
        if adapted not in self._features:
            model = self.runner.scratch_model(kind) if model is None else model
            self._features[adapted] = FrozenFeatures.of(model, self.everything)
        return self._features[adapted]

    # -- heads on frozen features

    def heads(self) -> list[Method]:
        """Return class means and linear heads with their errors on all folds."""
        features = self.features(HEADS_ONLY)
        errors: dict[float | None, list[FoldErrors]] = {l2: [] for l2 in STRENGTHS}
        about = f"solving heads of {self.runner.domain.name}: folds"
        for fold in tracked(self.folds, about, len(self.folds)):
            x = features.take(fold.val.rows).double()
            logits: dict[float | None, dict[str, Tensor]] = {l2: {} for l2 in STRENGTHS}
            for task in fold.tasks:
                solved = solve_heads(features, fold.train, task, STRENGTHS)
                for l2, (weight, bias) in solved.items():
                    logits[l2][task.name] = x @ weight.T + bias
            for l2 in STRENGTHS:
                errors[l2].append(FoldErrors.of(logits[l2], fold))
        return [Method(head_name(l2), HEADS_ONLY, l2, tuple(errors[l2])) for l2 in STRENGTHS]

    # -- training

    def trained(self, kind: AdapterKind, l2: float | None, subset: Subset, part: str) -> Universal:
        """Return a scratch model that is trained on a subset, starting from a head."""
        model = self.runner.scratch_model(kind)
        set_heads(model, subset, self.features(kind, model), subset.train, l2)
        self.runner.train(model, kind, part, subset)
        return model

    def fold_errors(self, kind: AdapterKind, l2: float | None, k: int) -> FoldErrors:
        """Return the errors of what is trained on the k-th fold; finished folds are recorded."""
        runner, part = self.runner, f"{kind.label}-fold-{k}"
        if part not in runner.done:
            model = self.trained(kind, l2, self.folds[k], part).eval()
            errors = FoldErrors.of(_predict(model, self.folds[k]), self.folds[k])
            runner.record(part, errors.to_json())
            runner.delete_checkpoints(part)
        return FoldErrors.from_json(runner.done[part])

    def race(self, start: Method, kinds: Sequence[AdapterKind], drop: bool) -> list[Method]:
        """Train kinds fold by fold, starting from the head of a method; return their errors.

        Args:
            drop: Whether to drop those that are clearly worse than the best, and to stop when one
                method is left.
        """
        methods = {kind: Method(kind.label, kind, start.l2) for kind in kinds}
        racing: list[AdapterKind] = list(kinds)
        for k in range(len(self.folds)):
            for kind in racing:
                errors = self.fold_errors(kind, start.l2, k)
                old = methods[kind]
                methods[kind] = Method(old.name, kind, old.l2, (*old.folds, errors))
            entrants = [start, *(methods[kind] for kind in racing)]
            best = min(entrants, key=lambda method: error_of(method.folds[: k + 1]))
            shown = ", ".join(f"{m.name} {error_of(m.folds[: k + 1]):.1f} %" for m in entrants)
            say(f"{self.runner.domain.name} fold {k + 1} of {len(self.folds)}: error of {shown}")
            held_out = max((method.held_out for method in methods.values()), default=0)
            if held_out >= ENOUGH:
                break
            if not drop or held_out < MIN_HELD_OUT:
                continue
            lost = {
                method.name
                for method in entrants
                if is_clearly_worse(method.folds[: k + 1], best.folds[: k + 1], DEVIATIONS)
            }
            racing = [kind for kind in racing if kind.label not in lost]
            if not racing or (len(racing) == 1 and start.name in lost):
                break
        return list(methods.values())

    # -- the pack, trained on all images

    def keep(self, method: Method) -> None:
        """Train the method on all images, unless that is done, and save its pack."""
        runner, part = self.runner, method.kind.label
        if part in runner.done and runner.pack_path(method.kind).exists():
            return
        error = method.error or 0.0
        if method.kind == HEADS_ONLY:
            model = runner.scratch_model(HEADS_ONLY)
            features = self.features(HEADS_ONLY, model)
            set_heads(model, runner.domain, features, self.everything.train, method.l2)
            runner.keep(model, HEADS_ONLY, error, 0, 0.0)
            return
        model = self.trained(method.kind, method.l2, self.everything, part)
        runner.keep(model, method.kind, error, runner.recipe.train.steps or 0, 0.0)


def choose_method(
    runner: TrialRunner, kinds: Sequence[AdapterKind], required: bool = False
) -> tuple[Method, list[Method], str]:
    """Train the method with the lowest error on held-out images, and keep its pack.

    Args:
        kinds: What is trained with gradients, as candidates besides class means and linear heads.
        required: Whether only these kinds may be chosen, because the user asked for one.

    Returns:
        The method, all methods, and the reason for the choice.
    """
    few = FewShot(runner)
    kinds = [kind for kind in kinds if kind != HEADS_ONLY]
    if not few.folds:
        method = Method(head_name(None), HEADS_ONLY, None)
        if required and kinds:
            method = Method(kinds[0].label, kinds[0], None)
        few.keep(method)
        return method, [method], f"{method.name}: no class has two images, so none can be held out"
    heads = few.heads()
    best = min(heads, key=_error)  # the simplest in a tie
    say(f"{runner.domain.name}: best head on the folds: {best.name}, {best.error:.1f} % error")
    trained = few.race(best, kinds, drop=not required)
    finished = [each for each in trained if len(each.folds) == max(len(m.folds) for m in trained)]
    # those that were dropped have more errors; the others are compared on the same images
    entrants = finished if required and finished else [best, *finished]
    count = min(len(method.folds) for method in entrants)
    best = min(entrants, key=lambda method: error_of(method.folds[:count]))
    few.keep(best)
    simple = next(iter(heads))
    reason = (
        f"{best.name}: {best.error:.1f} % error on {best.held_out} images held out in "
        f"{len(best.folds)} folds (class means {simple.error:.1f} %)"
    )
    return best, [*heads, *trained], reason


def _error(method: Method) -> float:
    return error_of(method.folds)


def _predict(model: Universal, fold: Subset) -> dict[str, Tensor]:
    """Return the logits of the held-out images, by task."""
    like = next(model.parameters())
    outputs = []
    with torch.inference_mode():
        for i in range(0, len(fold.val), BATCH):
            x, _ = fold.val.batch(np.arange(i, min(i + BATCH, len(fold.val))))
            outputs.append(model(x.to(like.device, like.dtype), domain=fold.name))
    return {task.name: torch.cat([out[task.name] for out in outputs]) for task in fold.tasks}
