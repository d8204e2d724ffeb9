"""The result of `evaluate`: a table, and what it was computed from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate, evaluate_split
from onetrunk.eval.evaluation import Evaluation
from onetrunk.eval.table import Table
from onetrunk.nn.universal import Universal
from onetrunk.store.places import MARK
from tests.helpers.errors import raises
from tests.helpers.small import DENSE, domain, network

TWO = (Task("kind", "classify", ("a", "b", "c")), Task("age", "regress"))
SAME = (Task("kind", "classify", ("a", "b", "c")), Task("other", "classify", ("x", "y")))


@pytest.fixture(scope="module")
def domains() -> list[Domain]:
    return [domain("two", *TWO), domain("rooms", *DENSE, seed=2), domain("same", *SAME, seed=3)]


@pytest.fixture(scope="module")
def model(domains: list[Domain]) -> Universal:
    return network(domains)


@pytest.fixture(scope="module")
def evaluation(model: Universal, domains: list[Domain]) -> Evaluation:
    return evaluate(model, domains, progress=False)


def test_it_is_a_table_and_equals_one_with_the_same_scores(evaluation: Evaluation) -> None:
    table = Table.from_json(json.loads(json.dumps(evaluation.to_json())))
    assert table == evaluation and evaluation == table
    assert hash(evaluation) == hash(evaluation)
    assert Table(table.rows, "val") != evaluation != Table(table.rows[1:], "test")
    assert "scores on test" in str(evaluation)


def test_details_by_domain_and_task(evaluation: Evaluation) -> None:
    matrix = evaluation.confusion("two")  # the only task with one
    assert matrix.counts.sum() == evaluation.row("two", "kind").count
    wrong = 100 * (1 - matrix.counts.trace() / matrix.counts.sum())
    assert wrong == pytest.approx(evaluation.value("two", "kind"))
    assert [one.label for one in evaluation.per_class("rooms")] == list(DENSE[0].classes)
    error = 100 * evaluation.reliability("same", "other").calibration_error
    assert error == pytest.approx(evaluation.value("same", "other", "ece"))
    assert len(evaluation.worst("rooms", "depth", 3)) == 3
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(evaluation.per_class("two"))
    assert list(frame.label) == ["a", "b", "c"] and frame.support.sum() == 24


def test_details_that_are_not_there(evaluation: Evaluation) -> None:
    with raises(BadInput, got="twp", available=["two", "rooms", "same"]):
        evaluation.confusion("twp")
    with raises(BadInput, got="sort", available=["kind", "age"]):
        evaluation.per_class("two", "sort")
    with raises(BadInput, "same", got="none", available=["kind", "other"]):
        evaluation.confusion("same")
    with raises(BadInput, "rooms", got="parts, depth, up"):
        evaluation.reliability("rooms")


def test_details_are_plain_data(model: Universal, domains: list[Domain]) -> None:
    found = evaluate_split(model, domains, progress=False).details()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["rooms"]["depth"]) == {"worst"}
    assert set(found["two"]["kind"]) == {"classes", "means", "confusion", "reliability", "worst"}


def test_a_sample_is_part_of_the_split(model: Universal, domains: list[Domain]) -> None:
    result = evaluate_split(model, domains[:1], "test", sample=7, progress=False)
    assert result.table().row("two", "kind").count == 7
    every = {image.file: image for image in evaluate(model, domains[:1]).worst("two", "age", 99)}
    for image in result.tasks[1].worst():
        assert every[image.file].predicted == image.predicted
    again = evaluate_split(model, domains[:1], "test", sample=7, progress=False)
    np.testing.assert_array_equal(again.tasks[0].split.rows, result.tasks[0].split.rows)


def test_saving_writes_its_files_into_a_folder_of_its_own(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    written = evaluation.save(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *(path.name for path in written), MARK
    }  # fmt: skip
    names = {path.name for path in written}
    assert {"same.other-confusion.csv", "two.kind-reliability.png", "two.age-worst.csv"} <= names
    rows = list(csv.DictReader((tmp_path / "new/rooms.parts-classes.csv").open()))
    assert list(rows[0])[:2] == ["class", "support"] and "iou" in rows[0]
    assert evaluation.save(tmp_path / "new") == written
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"")
    with raises(BadInput, "cat.jpg", try_="empty folder"):
        evaluation.save(tmp_path / "photos")
    with raises(BadInput, tmp_path / "photos/cat.jpg"):
        evaluation.save(tmp_path / "photos/cat.jpg")


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    task = Task("classify", "classify", ("a\udcff", "b", "c"))
    evaluation = evaluate(network([world := domain("odd", task)]), [world], progress=False)
    evaluation.save(tmp_path / "new")
    header = (tmp_path / "new/odd-confusion.csv").read_text().splitlines()[0]
    assert header == "true,a\\udcff,b,c"
