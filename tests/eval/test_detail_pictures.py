"""Pictures of a confusion matrix and of a reliability diagram: what is drawn, and where."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.eval import detail_pictures as pictures
from onetrunk.eval.metrics.calibration import reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix


def cells_of(matrix: ConfusionMatrix) -> np.ndarray:
    """Return the colour near the top left corner of every cell, below and right of the names."""
    drawn = np.asarray(pictures.confusion_picture(matrix))
    rows, columns = (min(len(n), pictures.SHOWN) for n in (matrix.labels, matrix.columns))
    bottom, right = drawn.shape[0] - 16, drawn.shape[1] - 16
    y = bottom - pictures.CELL * np.arange(rows, 0, -1) + 3
    x = right - pictures.CELL * np.arange(columns, 0, -1) + 3
    return np.asarray(drawn[y[:, None], x])


def test_colours_are_shares_of_the_true_class() -> None:
    labels = [f"class number {i}" for i in range(12)]  # as wide as the title
    true = np.repeat(np.arange(12), 4)
    predicted = true.copy()
    predicted[0] = 5  # a quarter of the first class
    predicted[4:8] = 2  # all of the second
    colours = cells_of(ConfusionMatrix.of(labels, true, predicted))
    assert tuple(colours[1, 2]) == tuple(colours[3, 3]) == pictures.BLUE
    quarter = [round(255 + (blue - 255) / 4) for blue in pictures.BLUE]
    assert colours[0, 5].tolist() == quarter
    assert tuple(colours[1, 1]) == pictures.PAPER
    assert (colours != pictures.PAPER).any(2).sum() == 13


def test_of_many_classes_those_are_drawn_that_are_confused_most() -> None:
    labels = [f"c{i}" for i in range(60)]
    true = np.arange(60)
    predicted = np.where(true < 50, true, true - 1)  # 11 classes are confused
    colours = cells_of(ConfusionMatrix.of(labels, true, predicted))
    assert colours.shape[:2] == (40, 40)
    blue = (colours == pictures.BLUE).all(2)
    # the first 29 classes and the last 11, of which one is right
    assert blue.diagonal().tolist() == [True] * 30 + [False] * 10
    assert blue.diagonal(-1).tolist() == [False] * 29 + [True] * 10
    assert blue.sum() == 40


@pytest.mark.parametrize(("right", "colour"), [(0.5, pictures.ORANGE), (1.0, None)])
def test_a_gap_is_orange_if_the_network_is_too_confident(
    right: float, colour: tuple[int, int, int] | None
) -> None:
    answers = np.arange(20) < 20 * right
    drawn = np.asarray(pictures.reliability_picture(reliability(np.full(20, 0.9), answers)))
    assert (drawn == pictures.ORANGE).all(2).any() == (colour is not None)
    blue = (drawn == pictures.BLUE).all(2)
    top = np.flatnonzero(blue.any(1)).min()  # the bar ends at the accuracy
    bottom = 44 + pictures.PLOT
    assert abs((bottom - top) / pictures.PLOT - right) < 0.01
