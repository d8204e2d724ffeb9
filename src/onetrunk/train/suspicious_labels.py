"""Find images whose label is suspicious, by confident learning over cross-validated predictions.

The features are those of a trained trunk, frozen, so nothing but linear heads is trained: one for
each of K folds, which predicts the images that it was not trained on. Folds are stratified by class
and keep groups together. `confident_learning` then compares the predictions with the labels. (If
the trunk was trained on the same wrong labels, its features fit them to some degree, and fewer
of them are found.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stratified import majority
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import read_ahead
from onetrunk.eval.feature_map import pooled_features
from onetrunk.eval.model_split import even_batches, split_through
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say
from onetrunk.train.confident_learning import margins, suspicious
from onetrunk.train.linear_heads import Design, Solution, classify

GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # λ of the heads, strongest first
FOLDS = 5
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SuspiciousLabel:
    """An image whose label the predictions contradict.

    Attributes:
        path: The name of the image in its source.
        split: Its split.
        task: The task.
        label: The given label.
        suggested: The class that is confidently predicted.
        confidence: The predicted probability of that class.
        label_confidence: The predicted probability of the given label.
        margin: The normalized margin, from -1 (most suspicious) to 1.
        row: The place of the image in the domain's index.
    """

    path: str
    split: str
    task: str
    label: str
    suggested: str
    confidence: float
    label_confidence: float
    margin: float
    row: int


def suspicious_labels(
    model: Universal,
    domain: Domain,
    *,
    through: str | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> list[SuspiciousLabel]:
    """Return the images of all splits whose label is suspicious, most suspicious first.

    Args:
        model: A trained model; its trunk is not changed.
        domain: The images and labels to check; its classes need not be those of the model.
        through: The domain of the model whose norms, adapters and pixel pipeline are used; None:
            the one with the name of `domain`, or the only one.
        folds: The number of folds, at least 2.
        seed: The seed of the folds.
    """
    through = _domain_of(model, domain.name if through is None else through, through is None)
    tasks = [task for task in domain.tasks if task.kind == "classify"]
    if not tasks:
        raise BadInput(
            f"{domain.name}: expected a task of kind classify, whose labels can be checked",
            got=", ".join(f"{task.name} ({task.kind})" for task in domain.tasks),
        )
    if folds < 2:
        raise BadInput("expected at least 2 folds", got=folds)
    rows, features = _features(model, domain, through)
    found = [each for task in tasks for each in _of_task(domain, task, rows, features, folds, seed)]
    return sorted(found, key=lambda each: each.margin)


def _domain_of(model: Universal, name: str, guess: bool) -> str:
    """Return the domain of the model to pass the images through."""
    if guess and name not in model.domains and len(model.domains) == 1:
        return next(iter(model.domains))
    if name not in model.domains:
        raise BadInput("the model has no such domain", got=name, available=model.domains)
    return name


def _features(model: Universal, domain: Domain, through: str) -> tuple[Rows, Tensor]:
    """Return the rows of all readable images in the index, and their pooled features."""
    pixels = model.domains[through].pixels
    parts = [split_through(domain, pixels, name) for name in SPLITS]
    rows, features = [], []
    with Track(f"features of {domain.name}", sum(map(len, parts))) as track:

        def batches(index: int) -> Iterator[Tensor]:
            places = np.arange(len(parts[index]))
            for x, _ in read_ahead(parts[index], even_batches(places)):
                yield x
                track(len(x))

        for i, part in enumerate(parts):
            if len(part):
                rows.append(part.rows)
                features.append(pooled_features(model, through, batches(i)))
    return np.concatenate(rows), torch.cat(features)


def _of_task(
    domain: Domain, task: Task, rows: Rows, features: Tensor, folds: int, seed: int
) -> list[SuspiciousLabel]:
    index = domain.index
    labels = index.labels[task.name][rows].astype(np.int64)
    fold = folds_of(index.joined[rows], labels, folds, seed_of(seed, domain.name, task.name))
    # a class that is in one fold alone has nothing to be learned from when that fold is held out
    in_folds = [np.unique(fold[labels == c]) for c in range(len(task.classes))]
    learned = np.array([len(each) > 1 for each in in_folds])
    checked = np.flatnonzero((labels != NO_CLASS) & learned[labels])
    if learned.sum() < 2:
        raise BadInput(
            f"{domain.name}: task {task.name}: expected at least 2 classes with 2 images each",
            got=f"{int(learned.sum())}",
        )
    if not learned.all():
        few = [c for c, fine in zip(task.classes, learned, strict=True) if not fine]
        say(f"{domain.name}: not checked, as they have fewer than 2 images: {', '.join(few)}")
    kept = np.flatnonzero(learned)  # the classes that heads are trained on
    target = np.searchsorted(kept, labels[checked])
    x, fold = features[torch.from_numpy(checked)].numpy(), fold[checked]
    probabilities = held_out_probabilities(x, target, fold, len(kept), f"heads of {task.name}")
    order, suggested = suspicious(probabilities, target)
    margin = margins(probabilities, target)
    return [
        SuspiciousLabel(
            path=index.keys[row],
            split=SPLITS[index.split[row]],
            task=task.name,
            label=task.classes[kept[target[i]]],
            suggested=task.classes[kept[c]],
            confidence=float(probabilities[i, c]),
            label_confidence=float(probabilities[i, target[i]]),
            margin=float(margin[i]),
            row=row,
        )
        for i, c in zip(order.tolist(), suggested.tolist(), strict=True)
        for row in [int(rows[checked[i]])]
    ]


def folds_of(units: NDArray[np.uint64], labels: Rows, folds: int, seed: int) -> Rows:
    """Return the fold of each image: units stay together, and classes are spread evenly."""
    unique, inverse = np.unique(units, return_inverse=True)
    stratum = majority(inverse, labels - NO_CLASS, len(unique))
    chance = np.random.default_rng(seed).permutation(len(unique))
    fold = np.empty(len(unique), np.int64)
    fold[np.lexsort((chance, stratum))] = np.arange(len(unique)) % folds
    return fold[inverse]


def held_out_probabilities(
    features_NC: NDArray[np.float32],
    labels_N: Rows,
    fold_N: Rows,
    classes: int,
    about: str = "heads",
) -> NDArray[np.float64]:
    """Return probabilities (N, classes) by heads that were not trained on the image's fold.

    λ is chosen by the mean log-likelihood of the first held-out fold, and used for all.
    """
    probabilities = np.zeros((len(labels_N), classes))
    numbers = np.unique(fold_N).tolist()
    grid: tuple[float, ...] = GRID
    with Track(about, len(numbers)) as track:
        for number in numbers:
            held, fitted = np.flatnonzero(fold_N == number), np.flatnonzero(fold_N != number)
            design = Design(features_NC, fitted, torch.device("cpu"))
            target = torch.from_numpy(labels_N[fitted])
            x = torch.from_numpy(features_NC[held]).double()
            truth = torch.from_numpy(labels_N[held])
            best: tuple[float, Tensor, Solution] | None = None
            for solution in classify(design, target, None, classes, grid):
                logits = x @ solution.weight.T + solution.bias
                loss = float(F.cross_entropy(logits, truth))
                if best is None or loss < best[0]:
                    best = loss, logits, solution
            if best is not None:
                probabilities[held] = best[1].softmax(1).numpy()
                grid = (best[2].l2,)
            track()
    return probabilities
