"""Folds of a domain with few images, which hold out every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onetrunk.config.add_recipe import Few
from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import NO_CLASS, Task

FEW = 50.0  # images per class, on average; a domain with fewer has few images
FOLDS = 5

Rows = NDArray[np.int64]  # places in the index of a domain


class Subset(Domain):
    """A domain with other splits; everything else is taken from the original domain."""

    def __init__(self, domain: Domain, rows: dict[str, Rows]) -> None:
        domain.check()
        # these are computed on first use, from all images of the domain
        computed = (domain.index, domain.decoded, domain.pixels, domain.augmentation)
        self.__dict__.update(domain.__dict__)
        index, decoded, pixels, _ = computed
        self._rows = rows
        self.__dict__["splits"] = {
            name: Split(name, rows[name], index, decoded.frames, pixels) for name in SPLITS
        }

    def good(self, split: str) -> Rows:
        """Return the images of a split; the original domain has checked that they are readable."""
        return self._rows[split]

    def check(self) -> None:
        """Do nothing: the original domain has been checked."""


def has_few_images(domain: Domain, setting: Few) -> bool:
    """Return whether few-shot methods are used.

    Args:
        setting: True, False, or "auto": below 50 images per class in training and validation.
    """
    if setting is False or any(task.kind != "classify" for task in domain.tasks):
        return False
    return setting is True or images_per_class(domain) < FEW


def images_per_class(domain: Domain) -> float:
    """Return the number of labelled training and validation images per class, on average.

    The task with the fewest counts.
    """
    return min(_count_labelled(domain, task) / max(1, len(task.classes)) for task in domain.tasks)


def _count_labelled(domain: Domain, task: Task) -> int:
    splits = (domain.train, domain.val)
    return sum(int((split.label(task.name) != NO_CLASS).sum()) for split in splits)


def make_folds(domain: Domain, seed: int) -> list[Subset]:
    """Split training and validation images into folds; each validates on the images it holds out.

    Every class is spread evenly over the folds, and the images of a group are in the same fold. A
    class is always left in training: its only image, or its only group, is never held out.
    """
    rows = trainable_rows(domain)
    label = domain.index.labels[domain.tasks[0].name][rows]
    fold_of = assign_folds(label, domain.index.joined[rows], seed_of(seed, domain.name, "folds"))
    test = domain.test.rows
    return [
        Subset(domain, {"train": rows[fold_of != k], "val": rows[fold_of == k], "test": test})
        for k in range(FOLDS)
        if (fold_of == k).any()
    ]


def assign_folds(label: NDArray[np.integer], unit: NDArray[np.generic], seed: int) -> Rows:
    """Return the fold of each image; -1 for images that are never held out.

    The units, largest first and otherwise in a seeded order, are put one after the other into the
    fold that has the fewest images of their classes, and of these the fewest images. Then units are
    taken out of a fold that would leave no image of a class for training.

    Args:
        label: The class of each image; NO_CLASS without one.
        unit: What is kept together: equal for the images of a group.
    """
    _, unit_of = np.unique(unit, return_inverse=True)
    classes, class_of = np.unique(label, return_inverse=True)
    members = np.zeros((int(unit_of.max(initial=-1)) + 1, len(classes)), np.int64)
    np.add.at(members, (unit_of, class_of), 1)
    labelled = members[:, classes != NO_CLASS]
    order = permutation(seed, 0, len(members))
    # by class, so that the folds of a class do not depend on the other classes' order
    first = labelled.argmax(1)[order] if labelled.shape[1] else np.zeros(len(order), np.int64)
    order = order[np.lexsort((first, -members.sum(1)[order]))]
    counts = np.zeros((FOLDS, len(classes)), np.int64)
    fold_of_unit = np.full(len(members), -1, np.int64)
    for u in order:
        if not labelled[u].any():
            continue  # an image without a label is always trained on
        same = counts @ members[u]
        fold = min(range(FOLDS), key=lambda k: (same[k], counts[k].sum(), k))
        fold_of_unit[u] = fold
        counts[fold] += members[u]
    total = labelled.sum(0)
    for c in np.flatnonzero(total):
        has_class = labelled[:, c] > 0
        for k in range(FOLDS):
            held = has_class & (fold_of_unit == k)
            if labelled[held, c].sum() == total[c]:
                fold_of_unit[held] = -1
    return fold_of_unit[unit_of]


def trainable_rows(domain: Domain) -> Rows:
    """Return the places of all training and validation images."""
    return np.sort(np.concatenate([domain.train.rows, domain.val.rows]))


def train_on_all(domain: Domain) -> Subset:
    """Return the domain with all trainable images as its training and its validation split.

    (The training loop needs validation images.)
    """
    rows = trainable_rows(domain)
    return Subset(domain, {"train": rows, "val": rows, "test": domain.test.rows})
