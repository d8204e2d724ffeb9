"""The choice of a method for a domain with few images, by cross-validation (Stone 1974).

With few images, a validation split is too small to choose by, and may lack classes. So validation
images are trained on as well, and methods are evaluated on folds, in which each image is held out
once. The methods are class means (class_means.py), linear heads with several penalties, and what is
trained with gradients, parallel adapters (or norms, where adapters are not possible), which starts
from class means. (Kumar et al. 2022: a head that is fitted first distorts the features less. A head
with a small penalty already predicts the few training images perfectly, so that little would be
left for adapters to learn.)

Heads are solved on features that are computed once, so they are evaluated on all folds. Adapters
are trained fold by fold, until they or the best head are clearly worse on the same held-out images,
or there are enough of these. Then the adapters are trained on all images, unless the head has fewer
errors by more than PREFERENCE standard errors of the paired difference.

This was chosen on three domains with 5 images a class at 32 pixels (one cell each, seed 0, measured
as in benchmarks/few.py): test errors in percent, and by how many standard errors the adapters are
worse than the best head on the folds.

| domain | class means | linear head | norms | adapters | on folds | choice |
|---|---|---|---|---|---|---|
| optdigits | 58.2 | 68.5 | 41.0 | 31.8 | −3.3 | adapters |
| icons | 87.5 | 84.2 | 87.2 | 89.2 | 1.5 | head |
| the first 12 classes of flags | 26.7 | 42.5 | 17.5 | 5.8 | −3.3 | adapters |

Norms were never the best, so they are not compared: each further method makes it more likely that
one is chosen by chance. In a doubtful case the adapters are chosen, as they win by more than they
lose. With a PREFERENCE of 1.5 the choices on these domains would be the same; with 2, it would be
the adapters on icons.

These adapters started from the best head, which for icons had an L2 penalty of 0.01. Started from
class means, they have 82.8 % test error there, less than all other methods (seed 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

START = None  # class means, which adapters are trained from; a number is a penalty of a linear head
PREFERENCE = 1.0  # standard errors by which adapters have to be worse for a head to be chosen
STOP = 1.5  # standard errors by which either has to be worse for the folds to end
MIN_HELD_OUT = 20  # images before that
ENOUGH = 300  # held-out images after which the folds end, as the errors are precise enough


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

    def evaluate(self, kind: AdapterKind, start: Method, stop: bool) -> Method:
        """Train adapters fold by fold; return the method with its errors.

        Args:
            start: The best head, which they are compared with.
            stop: Whether to stop when the head or the adapters are clearly worse than the other.
        """
        method, name = Method(kind.label, kind, START), self.runner.domain.name
        for k in range(len(self.folds)):
            errors = self.fold_errors(kind, START, k)
            method = replace(method, folds=(*method.folds, errors))
            head = start.folds[: k + 1]
            both = f"{start.name} {error_of(head):.1f} %, {method.name} {method.error:.1f} %"
            say(f"{name} fold {k + 1} of {len(self.folds)}: error of {both}")
            if method.held_out >= ENOUGH:
                break
            if not stop or method.held_out < MIN_HELD_OUT:
                continue
            pairs = (head, method.folds), (method.folds, head)
            if any(is_clearly_worse(one, other, STOP) for one, other in pairs):
                break
        return method

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
    runner: TrialRunner, kind: AdapterKind | None, required: bool = False
) -> tuple[Method, list[Method], str]:
    """Choose between heads and adapters by the errors on held-out images, and keep the pack.

    Args:
        kind: What is trained with gradients; None to choose among heads.
        required: Whether only this kind may be chosen, because the user asked for it.

    Returns:
        The method, all methods, and the reason for the choice.
    """
    few = FewShot(runner)
    kind = None if kind == HEADS_ONLY else kind
    if not few.folds:
        method = Method(head_name(None), HEADS_ONLY, None)
        if required and kind is not None:
            method = Method(kind.label, kind, None)
        few.keep(method)
        return method, [method], f"{method.name}: no class has two images, so none can be held out"
    heads = few.heads()
    head = min(heads, key=lambda method: error_of(method.folds))  # the simplest in a tie
    say(f"{runner.domain.name}: best head on the folds: {head.name}, {head.error:.1f} % error")
    methods, best = heads, head
    if kind is not None:
        trained = few.evaluate(kind, head, stop=not required)
        methods = [*heads, trained]
        best = trained if required else preferred(head, trained)
    few.keep(best)
    others = {method.name: method for method in (heads[0], head) if method is not best}
    compared = ", ".join(f"{name} {_error_on(best, m):.1f} %" for name, m in others.items())
    reason = f"{best.name}: {best.error:.1f} % error on {best.held_out} images held out in "
    reason += f"{len(best.folds)} folds" + (f" ({compared})" if compared else "")
    return best, methods, reason


def preferred(head: Method, trained: Method) -> Method:
    """Return the trained method, unless the head has clearly fewer errors on the same images."""
    same = head.folds[: len(trained.folds)]
    return head if is_clearly_worse(trained.folds, same, PREFERENCE) else trained


def _error_on(method: Method, other: Method) -> float:
    """Return the error of `other` in percent on the folds that `method` was evaluated on."""
    return error_of(other.folds[: len(method.folds)])


def _predict(model: Universal, fold: Subset) -> dict[str, Tensor]:
    """Return the logits of the held-out images, by task."""
    like = next(model.parameters())
    outputs = []
    with torch.inference_mode():
        for i in range(0, len(fold.val), BATCH):
            x, _ = fold.val.batch(np.arange(i, min(i + BATCH, len(fold.val))))
            outputs.append(model(x.to(like.device, like.dtype), domain=fold.name))
    return {task.name: torch.cat([out[task.name] for out in outputs]) for task in fold.tasks}
