"""Confident learning: labels that a classifier's held-out predictions contradict.

C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", JAIR 70 (2021). With the held-out probabilities p(c|x) of all images and their given labels
y, the threshold of a class is its mean self-confidence

    t_c = mean of p(c|x) over the images with y = c,

and an image is confidently of the class

    c*(x) = argmax of p(c|x) over the classes c with p(c|x) ≥ t_c.

Images with c*(x) ≠ y are the off-diagonal entries of the confident joint: their labels are
suspicious. They are ranked by the normalized margin p(y|x) − max over c ≠ y of p(c|x), lowest
first. The thresholds make the method robust to classes of different difficulty and frequency.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def thresholds(probabilities_NC: F64, labels_N: I64) -> F64:
    """Return the mean self-confidence of each class; infinity for a class without images."""
    classes = probabilities_NC.shape[1]
    own = probabilities_NC[np.arange(len(labels_N)), labels_N]
    total = np.bincount(labels_N, weights=own, minlength=classes)
    count = np.bincount(labels_N, minlength=classes)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def confident_classes(probabilities_NC: F64, labels_N: I64) -> I64:
    """Return the class that each image is confidently of; -1 if no class reaches its threshold."""
    reached = probabilities_NC >= thresholds(probabilities_NC, labels_N)
    best: I64 = np.where(reached, probabilities_NC, -1.0).argmax(1)
    return np.where(reached.any(1), best, -1)


def margins(probabilities_NC: F64, labels_N: I64) -> F64:
    """Return the normalized margin of each image, from -1 to 1."""
    rows = np.arange(len(labels_N))
    own = probabilities_NC[rows, labels_N]
    others = probabilities_NC.copy()
    others[rows, labels_N] = -np.inf
    margin: F64 = own - others.max(1)
    return margin


def suspicious(probabilities_NC: F64, labels_N: I64) -> tuple[I64, I64]:
    """Return the images with suspicious labels, most suspicious first, and the classes suggested.

    Args:
        probabilities_NC: Predictions of models that were not trained on the image; at least two
            classes.
        labels_N: The given labels.
    """
    suggested = confident_classes(probabilities_NC, labels_N)
    rows = np.flatnonzero((suggested >= 0) & (suggested != labels_N))
    order = rows[np.argsort(margins(probabilities_NC, labels_N)[rows], kind="stable")]
    return order, suggested[order]
