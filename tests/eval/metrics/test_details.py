"""Scores by class, confusion matrix, reliability, top-5: against torchmetrics and pinned values."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as reference

from onetrunk.data.task import NO_CLASS, NO_LABEL, NO_PIXEL, Task
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.metrics.by_class import (
    ClassScores,
    macro_mean,
    shown_fields,
    weighted_mean,
)
from onetrunk.eval.metrics.calibration import BINS
from onetrunk.eval.metrics.confusion import NO_CLASS as NONE
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.eval.metrics.scores import ImagePrediction
from tests.helpers.outputs import CLASSES, TASKS, random_outputs, scored


def test_confusion_and_classes_equal_torchmetrics() -> None:
    out, target = random_outputs("classify", 500)
    scores = scored("classify", out, target)
    known = target != NO_CLASS
    p, t = out[known].softmax(1), target[known]
    matrix = scores.confusion()
    assert matrix.labels == matrix.columns == CLASSES
    np.testing.assert_array_equal(matrix.counts, reference.multiclass_confusion_matrix(p, t, 5))
    assert matrix.support.tolist() == t.bincount(minlength=5).tolist()
    classes = scores.per_class()
    for name, function in (
        ("precision", reference.multiclass_precision),
        ("recall", reference.multiclass_recall),
        ("f1", reference.multiclass_f1_score),
    ):
        macro = float(function(p, t, 5, average="macro"))
        weighted = float(function(p, t, 5, average="weighted"))
        assert getattr(macro_mean(classes), name) == pytest.approx(macro, rel=1e-5)
        assert getattr(weighted_mean(classes), name) == pytest.approx(weighted, rel=1e-5)
        found = [getattr(one, name) for one in classes]
        assert found == pytest.approx(function(p, t, 5, average=None).tolist(), rel=1e-5)


def test_labels_at_one_half_equal_torchmetrics() -> None:
    out, target = random_outputs("multilabel", 300)
    known = target[:, 0] != NO_LABEL
    classes = scored("multilabel", out, target).per_class()
    p, t = out[known].sigmoid(), target[known].long()
    for name, function in (
        ("precision", reference.multilabel_precision),
        ("recall", reference.multilabel_recall),
        ("f1", reference.multilabel_f1_score),
        ("average_precision", reference.multilabel_average_precision),
    ):
        found = [getattr(one, name) for one in classes]
        assert found == pytest.approx(function(p, t, 5, average=None).tolist(), rel=1e-5)
    assert [one.support for one in classes] == t.sum(0).tolist()


def test_classes_of_maps_equal_torchmetrics() -> None:
    out, target = random_outputs("segment")
    classes = scored("segment", out, target).per_class()
    found = [one.iou for one in classes]
    expected = reference.multiclass_jaccard_index(
        out.argmax(1), target.long(), 5, average=None, ignore_index=NO_PIXEL
    )
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert sum(one.support for one in classes) == int((target != NO_PIXEL).sum())


@pytest.mark.parametrize("count", [6, 12])
def test_top_5_equals_torchmetrics(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    target = torch.randint(count, (400,), generator=generator)
    out = torch.randn(400, count, generator=generator) + torch.eye(count)[target]
    task = Task("t", "classify", tuple(f"c{i}" for i in range(count)))
    found = scored("classify", out, target, task=task).compute()
    right = reference.multiclass_accuracy(out, target, count, average="micro", top_k=5)
    assert found["top5_error"] == pytest.approx(100 - 100 * float(right), abs=1e-4)
    assert 0 < found["top5_error"] < found["error"]


def test_of_equal_scores_the_first_class_is_higher_in_the_top_5() -> None:
    task = Task("t", "classify", tuple("abcdefgh"))
    found = scored("classify", torch.zeros(8, 8), torch.arange(8), task=task).compute()
    assert (found["top5_error"], found["error"]) == (100 * 3 / 8, 100 * 7 / 8)


def test_pinned_classes_and_undefined_shares() -> None:
    """Class c is predicted and has no image; class d has images and is never predicted."""
    true = [0, 0, 0, 1, 3, 3]
    predicted = [0, 0, 2, 0, 1, 0]
    scores = scored("classify", 9 * torch.eye(5)[predicted], torch.tensor(true))
    a, b, c, d, e = scores.per_class()
    assert a == ClassScores("a", 3, 4, 0.5, 2 / 3, 4 / 7)
    assert b == ClassScores("b", 1, 1, 0.0, 0.0, 0.0)
    assert c == ClassScores("c", 0, 1, 0.0, None, 0.0)
    assert d == ClassScores("d", 2, 0, None, 0.0, 0.0)
    assert e == ClassScores("e", 0, 0, None, None, None)
    classes = (a, b, c, d, e)
    mean = macro_mean(classes)
    assert (mean.support, mean.predicted, mean.average_precision) == (6, 6, None)
    assert (mean.precision, mean.recall) == pytest.approx((0.5 / 3, 2 / 9))
    assert mean.f1 == pytest.approx(4 / 21)
    assert weighted_mean(classes).recall == pytest.approx(2 / 6)
    assert shown_fields(classes) == ("label", "support", "predicted", "precision", "recall", "f1")


def test_the_confusion_matrix_of_thousands_of_classes_is_small() -> None:
    labels = [f"class {i}" for i in range(20_000)]
    true, predicted = np.array([0, 7, 7, 19_999]), np.array([1, 7, 8, 0])
    matrix = ConfusionMatrix.of(labels, true, predicted)
    assert len(matrix.cells) == 4
    block = matrix.most_confused(5)
    assert block.labels == ("class 0", "class 1", "class 7", "class 8", "class 19999")
    expected = np.zeros((5, 5), int)
    expected[[0, 2, 2, 4], [1, 2, 3, 0]] = 1
    np.testing.assert_array_equal(block.counts, expected)


def test_the_csv_of_a_matrix_is_safe_to_open_in_a_spreadsheet() -> None:
    matrix = ConfusionMatrix.of(["=cmd()", "-1", "a,b"], np.array([0, 1, 1]), np.array([0, 2, 3]))
    rows = list(csv.reader(io.StringIO(matrix.to_csv())))
    assert rows[0] == ["true", "'=cmd()", "-1", "a,b", NONE]
    assert rows[1:] == [
        ["'=cmd()", "1", "0", "0", "0"],
        ["-1", "0", "0", "1", "1"],
        ["a,b", "0", "0", "0", "0"],
    ]
    assert matrix.to_json() == {
        "labels": ["=cmd()", "-1", "a,b", NONE],
        "cells": [[0, 0, 1], [1, 2, 1], [1, 3, 1]],
    }


def test_reliability_adds_up_to_the_calibration_error() -> None:
    out, target = random_outputs("classify", 500)
    scores = scored("classify", out, target)
    found = scores.reliability()
    assert 100 * found.calibration_error == scores.compute()["ece"]
    assert [each.low for each in found.bins] == [b / BINS for b in range(BINS)]
    known = [each for each in found.bins if each.count]
    assert sum(each.count for each in known) == scores.count
    gaps = [each.count * abs(each.accuracy - each.confidence) for each in known]
    assert sum(gaps) / scores.count == pytest.approx(found.calibration_error)
    assert all(each.low <= each.confidence <= each.high for each in known)
    assert {each.accuracy for each in found.bins if not each.count} == {None}


def test_predictions_without_scores_have_classes_but_no_reliability() -> None:
    task = Task("t", "classify", tuple("abcdefg"))
    scores = scores_of(task)
    scores.add_predicted(np.array([0, 1, 7]), np.array([0, 0, 1]))  # type: ignore[attr-defined]
    assert set(scores.compute()) == {"error", "balanced_error"}
    assert scores.reliability() is None
    matrix = scores.confusion()
    assert matrix is not None and matrix.columns[-1] == NONE and matrix.counts[1, 7] == 1
    assert scores.predictions([2]) == [ImagePrediction("b", NONE)]
    assert np.isnan(scores.image_errors()).tolist() == [True, False, False]  # type: ignore[arg-type]


def test_the_errors_of_images() -> None:
    out = torch.tensor([[2.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0]])
    scores = scored("classify", out, torch.tensor([0, 1, NO_CLASS]))
    right, wrong, unknown = scores.image_errors()
    assert math.isnan(right) and math.isnan(unknown)
    assert wrong == pytest.approx(math.log(math.exp(2) + 4))
    (shown,) = scores.predictions([1])
    assert (shown.given, shown.predicted) == ("b", "a")
    assert shown.confidence == pytest.approx(math.exp(2) / (math.exp(2) + 4))
    labels = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.uint8)
    scores = scored("multilabel", torch.tensor([[3.0, -3, -3, -3, -3]] * 2), labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([3.0, -3, -3, -3, -3]), labels[0].float()
    )
    assert scores.image_errors()[0] == pytest.approx(float(expected), rel=1e-6)
    assert [one.given for one in scores.predictions([1, 0])] == ["–", "a, c"]


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_every_kind_ranks_images_as_its_headline_does(kind: str) -> None:
    """An image that contributes more to the headline is not ranked as better."""
    scores = scored(kind, *random_outputs(kind))
    errors = scores.image_errors()
    if kind == "embed":
        assert errors is None
        by_class = scores.per_class()
        hits = sum(one.recall * one.support for one in by_class if one.recall is not None)
        assert 100 * hits / scores.count == pytest.approx(scores.compute()["recall_at_1"])
        return
    assert np.isnan(errors[~scores.labelled]).all()
    if kind in ("depth", "normals"):
        sums = scores.per_image()
        expected = sums["sum"][scores.labelled] / sums["count"][scores.labelled]
        np.testing.assert_allclose(errors[scores.labelled], expected)
    elif kind == "classify":
        wrong = scores.per_image()["sum"] > 0
        assert (~np.isnan(errors)).tolist() == wrong.tolist()
    worst = int(np.nanargmax(errors))
    assert [one.predicted != "" for one in scores.predictions([worst, worst])] == [True, True]
