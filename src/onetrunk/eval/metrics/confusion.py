"""Confusion matrices: how many images of each class were predicted as each class."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.display import Described, Summary, plural
from onetrunk.store.csv_text import csv_text

SHOWN = 10  # pairs of classes in the summary
NO_CLASS = "(none of the classes)"  # a prediction of an external model that is not a class


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were predicted as another: number and share of the true class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, eq=False, repr=False)
class ConfusionMatrix(Described):
    """Counts of images by true and predicted class.

    Only the cells with images are stored, so thousands of classes need little memory.

    Args:
        labels: The classes, in the order of rows and columns.
        cells: (n, 3): true class, predicted class and count of each cell with images, sorted. A
            predicted class of `len(labels)` is none of the classes.
    """

    labels: tuple[str, ...]
    cells: NDArray[np.int64]

    @classmethod
    def of(
        cls, labels: Sequence[str], true: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> ConfusionMatrix:
        """Count pairs of true and predicted classes, one per image."""
        pairs, counts = np.unique(np.stack([true, predicted]), axis=1, return_counts=True)
        return cls(tuple(labels), np.column_stack([pairs.T, counts]).astype(np.int64))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: the classes, and `NO_CLASS` where that was predicted."""
        outside = (self.cells[:, 1] == len(self.labels)).any()
        return (*self.labels, NO_CLASS) if outside else self.labels

    @property
    def counts(self) -> NDArray[np.int64]:
        """The matrix: a row for each true class, a column for each predicted class."""
        matrix = np.zeros((len(self.labels), len(self.columns)), np.int64)
        true, predicted, count = self.cells.T
        matrix[true, predicted] = count
        return matrix

    @property
    def support(self) -> NDArray[np.int64]:
        """The number of images of each class."""
        support = np.zeros(len(self.labels), np.int64)
        np.add.at(support, self.cells[:, 0], self.cells[:, 2])
        return support

    def pairs(self, limit: int) -> list[Confusion]:
        """Return the pairs of classes that are confused most often, by number of images."""
        support, columns = self.support.tolist(), self.columns
        confusions = [
            Confusion(columns[t], columns[p], n, n / support[t])
            for t, p, n in self.cells.tolist()
            if t != p
        ]
        return sorted(confusions, key=lambda c: (-c.count, -c.share))[:limit]

    def most_confused(self, limit: int) -> ConfusionMatrix:
        """Return the block of the classes that are confused most, at most `limit`, in order.

        A class counts with its wrong images and with those that were wrongly predicted as it.
        """
        if len(self.labels) <= limit:
            return self
        wrong = np.zeros(len(self.labels) + 1, np.int64)
        for column in (0, 1):
            off = self.cells[self.cells[:, 0] != self.cells[:, 1]]
            np.add.at(wrong, off[:, column], off[:, 2])
        chosen = np.sort(np.argsort(-wrong[:-1], kind="stable")[:limit])
        cells = self.cells[np.isin(self.cells[:, :2], chosen).all(1)]
        inside = np.column_stack([np.searchsorted(chosen, cells[:, :2]), cells[:, 2]])
        return ConfusionMatrix(tuple(self.labels[i] for i in chosen), inside)

    def summary(self) -> Summary:
        """Return the accuracy, and the pairs of classes that are confused most often."""
        images = int(self.cells[:, 2].sum())
        right = int(self.cells[self.cells[:, 0] == self.cells[:, 1], 2].sum())
        classes = plural(len(self.labels), "class", "classes")
        accuracy = f"{100 * right / images:.2f} %" if images else "unknown"
        facts = [("accuracy", f"{accuracy} ({right:,} of {plural(images, 'image')})")]
        pairs = [
            (c.true, c.predicted, f"{c.count:,}", f"{100 * c.share:.1f} %")
            for c in self.pairs(SHOWN)
        ]
        columns = ("class", "predicted as", "images", "of the class")
        return Summary(
            f"ConfusionMatrix({classes}, {plural(images, 'image')})", facts, columns, pairs
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data: the labels, and [true, predicted, count] of each cell with images."""
        return {"labels": list(self.columns), "cells": self.cells.tolist()}

    def to_csv(self) -> str:
        """Return the matrix as CSV: a row for each true class, a column for each prediction."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["true", *map(csv_text, self.columns)])
        for i, label in enumerate(self.labels):
            row = np.zeros(len(self.columns), np.int64)
            _, predicted, count = self.cells[self.cells[:, 0] == i].T
            row[predicted] = count
            writer.writerow([csv_text(label), *row.tolist()])
        return text.getvalue()
