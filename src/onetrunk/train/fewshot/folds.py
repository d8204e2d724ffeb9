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

FEW = 8.0  # images per class, on average; a domain with fewer has few images
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
        setting: True, False, or "auto": below 8 images per class in training and validation.
    """
    if setting is False or any(task.kind != "classify" for task in domain.tasks):
        return False
    shots = [_count_labelled(domain, task) / max(1, len(task.classes)) for task in domain.tasks]
    return setting is True or min(shots) < FEW


def _count_labelled(domain: Domain, task: Task) -> int:
    splits = (domain.train, domain.val)
    return sum(int((split.label(task.name) != NO_CLASS).sum()) for split in splits)


def make_folds(domain: Domain, seed: int) -> list[Subset]:
    """Split training and validation images into folds; each validates on the images it holds out.

    The images of a class are distributed over the folds in a seeded order, so that every class with
    at least two images is held out in some fold. The only image of a class is always trained on.
    """
    rows = trainable_rows(domain)
    labels = domain.index.labels[domain.tasks[0].name][rows]
    fold_of = np.full(len(rows), -1)
    first = 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2 or label == NO_CLASS:
            continue
        order = permutation(seed_of(seed, domain.name, "folds"), int(label), len(members))
        fold_of[members[order]] = (first + np.arange(len(members))) % FOLDS
        first += len(members)
    test = domain.test.rows
    return [
        Subset(domain, {"train": rows[fold_of != k], "val": rows[fold_of == k], "test": test})
        for k in range(FOLDS)
        if (fold_of == k).any()
    ]


def trainable_rows(domain: Domain) -> Rows:
    """Return the places of all training and validation images."""
    return np.sort(np.concatenate([domain.train.rows, domain.val.rows]))


def train_on_all(domain: Domain) -> Subset:
    """Return the domain with all trainable images as its training and its validation split.

    (The training loop needs validation images.)
    """
    rows = trainable_rows(domain)
    return Subset(domain, {"train": rows, "val": rows, "test": domain.test.rows})
