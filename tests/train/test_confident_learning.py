"""Confident learning against a slow reference, pinned values and properties."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.train.confident_learning import confident_classes, margins, suspicious, thresholds


def slow_suspicious(p: list[list[float]], labels: list[int]) -> tuple[list[int], list[int]]:
    """The definition, one image at a time."""
    classes = range(len(p[0]))
    threshold = {}
    for c in classes:
        own = [p[i][c] for i in range(len(p)) if labels[i] == c]
        threshold[c] = sum(own) / len(own) if own else float("inf")
    found = []
    for i, label in enumerate(labels):
        confident = [c for c in classes if p[i][c] >= threshold[c]]
        if not confident:
            continue
        best = max(confident, key=lambda c: p[i][c])
        if best != label:
            margin = p[i][label] - max(p[i][c] for c in classes if c != label)
            found.append((margin, i, best))
    found.sort(key=lambda each: each[:2])
    return [i for _, i, _ in found], [best for *_, best in found]


@pytest.mark.parametrize("seed", range(5))
def test_suspicious_labels_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 0.5), 200)
    labels = np.where(rng.random(200) < 0.8, p.argmax(1), rng.integers(0, 3, 200))
    order, suggested = suspicious(p, labels)
    assert (order.tolist(), suggested.tolist()) == slow_suspicious(p.tolist(), labels.tolist())
    assert 0 < len(order) < 100


def test_pinned_values() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    labels = np.array([0, 0, 1, 1, 1])
    np.testing.assert_allclose(thresholds(p, labels), [0.75, 0.6])
    assert confident_classes(p, labels).tolist() == [0, -1, 0, 1, 1]
    np.testing.assert_allclose(margins(p, labels), [0.8, 0.2, -0.6, 0.4, 0.8])
    order, suggested = suspicious(p, labels)
    assert (order.tolist(), suggested.tolist()) == ([2], [0])


def test_a_class_without_images_is_never_suggested() -> None:
    p = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
    labels = np.array([0, 1])
    assert thresholds(p, labels)[2] == np.inf
    assert 2 not in suspicious(p, labels)[1]


def test_right_labels_of_sure_predictions_are_not_suspicious() -> None:
    labels = np.arange(30) % 3
    p = np.full((30, 3), 0.05)
    p[np.arange(30), labels] = 0.9
    assert len(suspicious(p, labels)[0]) == 0


def test_the_order_of_classes_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    p, labels = rng.dirichlet(np.ones(5), 100), rng.integers(0, 5, 100)
    order, suggested = suspicious(p, labels)
    turn = np.array([2, 0, 4, 1, 3])  # the new place of each class
    turned = np.empty_like(p)
    turned[:, turn] = p
    other, named = suspicious(turned, turn[labels])
    np.testing.assert_array_equal(other, order)
    np.testing.assert_array_equal(named, turn[suggested])
