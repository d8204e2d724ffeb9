"""The section on classes: its numbers are those of the evaluation, and it is well-formed."""

from __future__ import annotations

import numpy as np
import pytest

from onetrunk.data.task import Task
from onetrunk.eval.evaluate import evaluate
from onetrunk.eval.metrics.by_class import class_scores
from onetrunk.eval.metrics.calibration import reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix
from onetrunk.report import class_errors as module
from onetrunk.report.class_charts import (
    CELL,
    PLOT,
    SHOWN,
    TOP,
    confusion_chart,
    reliability_chart,
)
from onetrunk.report.class_errors import ROWS, WORST, class_errors, class_table
from tests.helpers.small import DENSE, domain, network

KINDS = (
    Task("classify", "classify", ("a", "b", "c")),
    Task("tags", "multilabel", ("x", "y", "z")),
    Task("age", "regress", unit="years"),
    Task("near", "embed", ("p", "q")),
)


def test_what_is_shown_of_each_kind() -> None:
    domains = [domain("kinds", *KINDS), domain("rooms", *DENSE, seed=2)]
    model = network(domains)
    models = {"kinds": model, "rooms": model}
    found = {one.task: one for one in class_errors(models, domains)}
    assert list(found) == ["classify", "tags", "age", "near", "parts", "depth", "up"]
    assert [name for name, one in found.items() if one.confusion] == ["classify"]
    assert [name for name, one in found.items() if one.reliability] == ["classify"]
    tables = [name for name, one in found.items() if one.table]
    assert tables == ["classify", "tags", "near", "parts"]
    evaluation = evaluate(model, domains, progress=False)
    for name in ("classify", "age", "parts"):
        of = "rooms" if name == "parts" else "kinds"
        expected = evaluation.worst(of, name, WORST)
        assert [each.image for each in found[name].worst] == expected
    split = domains[0].test
    for each in found["classify"].worst:
        assert split.key(each.image.place) == each.image.file
        label = int(split.label("classify")[each.image.place])
        assert KINDS[0].classes[label] == each.image.given != each.image.predicted
        assert each.thumbnail.width == 16
    assert found["near"].worst == ()
    without = class_errors(models, domains, images=False)
    assert {one.task for one in without} == set(tables)
    assert not any(one.worst for one in without)


def test_large_splits_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 10)
    world = domain("plain")
    (found,) = class_errors({"plain": network([world])}, [world])
    assert (found.images, found.total) == (10, 24)
    assert found.table is not None
    assert sum(int(row[1]) for row in found.table.rows) == 10


def test_of_many_classes_those_with_the_lowest_scores_are_shown() -> None:
    count = ROWS + 20
    right = np.arange(count)[::-1]
    support = np.full(count, count)
    classes = class_scores([f"c{i}" for i in range(count)], right, support, support)
    table = class_table(classes)
    assert table is not None
    assert [row[0] for row in table.rows] == [f"c{i}" for i in range(20, count)]
    assert table.classes == count
    assert table.weakest == f"c{count - 1}, F1 0.0 %"
    assert class_table(()) is None


def test_a_confusion_chart_has_the_most_confused_classes() -> None:
    count = SHOWN + 10
    true = np.repeat(np.arange(count), 4)
    predicted = np.where(true < SHOWN, (true + (np.arange(len(true)) % 4 == 0)) % SHOWN, true)
    chart = confusion_chart(
        ConfusionMatrix.of([f"c{i}" for i in range(count)], true, predicted), ""
    )
    assert (chart.shown, chart.total) == (SHOWN, count)
    assert [label.name for label in chart.rows] == [f"c{i}" for i in range(SHOWN)]
    assert {cell.text for cell in chart.cells} == {"1", "3"}
    assert {cell.share for cell in chart.cells} == {0.25, 0.75}
    for cell in chart.cells:
        row, column = (cell.y - chart.top) / CELL, (cell.x - chart.left) / CELL
        assert cell.dark == (row == column)
        assert max(cell.x, cell.y) + CELL <= max(chart.width, chart.height)


def test_a_reliability_chart_places_accuracy_and_confidence() -> None:
    confidence = np.array([0.5] * 4 + [0.95] * 2)
    right = np.array([True, False, False, False, True, True])
    low, high = reliability_chart(reliability(confidence, right), "").bars
    assert low.accuracy == pytest.approx(TOP + PLOT * 0.75)
    assert low.confidence == pytest.approx(TOP + PLOT * 0.5)
    assert (low.over, high.over) == (True, False)
    assert high.accuracy == pytest.approx(TOP)
