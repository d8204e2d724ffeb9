"""Tables of predictions: the same scores as those of the model, notes and bad input."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.eval.external_predictions import evaluate_predictions, find_place
from onetrunk.eval.intervals import differences
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.errors import UNSET, raises
from tests.helpers.fakes import Fake, dense_source, labelled, small

CLASSES = ("red fox", "Arctic_Fox")
Rows = list[dict[str, Any]]


def foxes(count: int = 40, **more: Any) -> Domain:
    return Domain("foxes", small(count, CLASSES, **more), size=12)


def both(count: int = 40) -> Domain:
    """Return a domain of two tasks; some images lack a label of one of them."""
    rng = np.random.default_rng(0)
    listed = []
    for item in labelled(count, splits=("train", "train", "val", "test")):
        number = int(item.where)
        labels = {"letter": item.labels["classify"], "number": (float(rng.normal()), 1.0 * number)}
        if number % 16 == 14:
            labels = {"letter": labels["letter"]}
        if number % 16 == 15:
            labels = {"number": labels["number"]}
        listed.append(replace(item, labels=labels))
    return Domain(
        "both", Fake((Task("letter", "classify"), Task("number", "regress")), listed), size=8
    )


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def predicted(model: Universal, domain: Domain) -> Rows:
    """Return the rows of a table of a model's predictions for every test image."""
    rows: Rows = []
    model.eval()
    images, _ = domain.test.batch(np.arange(len(domain.test)))
    with torch.inference_mode():
        predictions = model(images, domain.name)
    for task in domain.tasks:
        for i, out in enumerate(predictions[task.name]):
            row = {"domain": domain.name, "image": domain.test.key(i), "task": task.name}
            label = task.classes[out.argmax()] if task.classes else ""
            rows.append(row | {"label": label, "value": "" if label else json.dumps(out.tolist())})
    return rows


def fox_rows(domain: Domain, label: str = "red fox") -> Rows:
    keys = [domain.test.key(i) for i in range(len(domain.test))]
    return [{"domain": "foxes", "image": key, "label": label} for key in keys]


def test_scores_equal_those_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    domains = [foxes(), both()]
    model = Universal(Trunk("resnet20"), domains)
    rows = [row for domain in domains for row in predicted(model, domain)]
    np.random.default_rng(0).shuffle(rows)
    found = evaluate_predictions(written(tmp_path / "predictions.csv", rows), domains)
    result = evaluate_split(model, domains)
    expected = result.table()
    table = found.table()
    assert [r.metric for r in table.rows] == [r.metric for r in expected.rows if r.metric != "ece"]
    for row in table.rows:
        same = expected.row(row.domain, row.task, row.metric)
        assert (row.count, row.headline) == (same.count, same.headline)
        assert row.value == pytest.approx(same.value, rel=1e-5)
        assert (row.low is None) == (same.low is None)
    assert found.notes == () and found.name == "predictions.csv"
    for difference in differences(result.outcomes(), found.outcomes()):
        assert difference.value == pytest.approx(0, abs=1e-5) and not difference.clear


def test_file_formats_paths_and_spellings(tmp_path: Path) -> None:
    domain = foxes()
    rows = fox_rows(domain)
    value = evaluate_predictions(written(tmp_path / "a.csv", rows), [domain]).table().value("foxes")
    short = [{"image": f"C:\\data\\x\\{row['image']}", "label": "Red_Fox"} for row in rows]
    found = evaluate_predictions(written(tmp_path / "b.csv", short), [domain])
    assert found.table().value("foxes") == value == 50
    lines = tmp_path / "c.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert evaluate_predictions(lines, [domain]).table().value("foxes") == value
    assert evaluate_predictions(lines, [domain], "test").result.split == "test"


def test_images_are_found_by_the_longest_end_of_a_path() -> None:
    rows_by_path = {"1.png": 0, "a/1.png": -1, "b/c/1.png": 2}
    ends = {
        "1.png": 0,
        "/data/1.png": 0,
        "./1.png": 0,
        "a/1.png": -1,  # of another split: not the 1.png of this one
        "/data/a/1.png": -1,
        "b/c/1.png": 2,
        "x\\b\\c\\1.png": 2,
        "c/1.png": 0,
        "11.png": None,
        "a/b": None,
        "": None,
        "1.png/": None,
    }
    assert {path: find_place(path, rows_by_path) for path in ends} == ends


def test_rows_that_do_not_match_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = foxes()
    train = domain.train.key(0)
    rows = fox_rows(domain)
    rows[0]["label"] = "wolf"
    rows += [
        {"domain": "foxes", "image": "nowhere\x1b.png", "label": "red fox"},
        {"domain": "foxes", "image": train, "label": "red fox"},
        {"domain": "birds", "image": "x", "label": "crane"},
        rows[3],
    ]
    found = evaluate_predictions(written(tmp_path / "p.csv", rows), [domain, both()])
    assert found.notes == (
        "p.csv: unknown domains: birds (1)",
        "p.csv: both: no predictions: left out",
        "p.csv: foxes/classify: 1 rows name unknown images: nowhere\\x1b.png",
        f"p.csv: foxes/classify: 1 rows are not of readable test images: {train}",
        "p.csv: foxes/classify: 1 images occur twice, with the same prediction: "
        + rows[3]["image"],
        "p.csv: foxes/classify: 1 labels are not classes and count as wrong: wolf (1)",
    )
    assert capsys.readouterr().err.splitlines() == list(found.notes)
    assert found.table().domains == ("foxes",)
    assert found.table().value("foxes") == 60  # half of ten, and the wolf
    pairs = found.result.confusions()["foxes"]["classify"]
    assert {pair["predicted"] for pair in pairs} == {"red fox", "(none of the classes)"}


def test_unreadable_images_need_no_prediction(tmp_path: Path) -> None:
    domain = foxes(images={"6": BadImage("torn")})
    rows = [*fox_rows(domain), {"domain": "foxes", "image": "0006.png", "label": "red fox"}]
    found = evaluate_predictions(written(tmp_path / "p.csv", rows), [domain])
    assert found.table().row("foxes").count == 9
    assert found.notes == (
        "p.csv: foxes/classify: 1 rows are not of readable test images: 0006.png",
    )


def test_images_without_a_label_need_no_prediction(tmp_path: Path) -> None:
    domain = both(64)
    label = domain.test.label("letter")
    rows = [
        {"image": domain.test.key(i), "task": "letter", "label": "a"}
        for i in range(len(label))
        if label[i] >= 0
    ]
    assert len(rows) < len(label)
    found = evaluate_predictions(written(tmp_path / "p.csv", rows), [domain])
    assert found.table().tasks("both") == ("letter",)
    assert found.table().row("both").count == len(rows)


# a change of the rows, and the facts and fields of the error
REFUSED: dict[str, tuple[Callable[[Rows], Any], tuple[str, ...], dict[str, Any]]] = {
    "a missing image": (
        lambda rows: rows.pop(4),
        ("p.csv: foxes/classify", "1 of 10 test images", "0022.png"),
        {"try_": "correct the table"},
    ),
    "a misspelled image": (
        lambda rows: rows[4].update(image="22.png"),
        ("1 of 10 test images", "0022.png; 1 rows", ": 22.png"),
        {},
    ),
    "two predictions": (
        lambda rows: rows.append({**rows[2], "label": "Arctic_Fox"}),
        ("foxes/classify", "1 images"),
        {"got": "0014.png"},
    ),
    "no prediction": (
        lambda rows: rows[3].update(label=" "),
        ("p.csv: line 5", "label"),
        {"try_": "every image"},
    ),
    "other labels": (
        lambda rows: [row.update(label="0") for row in rows],
        ("foxes/classify",),
        {"got": "0 (10)", "available": CLASSES},
    ),
    "another task": (
        lambda rows: [row.update(task="species") for row in rows],
        ("line 2", "foxes"),
        {"got": "species", "available": ["classify"]},
    ),
    "no domain": (
        lambda rows: rows[1].update(domain=""),
        ("line 3",),
        {"available": ["foxes", "both"]},
    ),
    "only unknown domains": (
        lambda rows: [row.update(domain="wolves") for row in rows],
        ("p.csv",),
        {"got": "wolves (10)", "available": ["foxes", "both"]},
    ),
    "no image column": (
        lambda rows: [row.update(file=row.pop("image")) for row in rows],
        ("p.csv",),
        {"got": "no image", "available": ["domain", "file", "label"]},
    ),
    "no domain column": (
        lambda rows: [row.pop("domain") for row in rows],
        ("p.csv",),
        {"got": "no domain", "available": ["image"]},
    ),
    "no label column": (
        lambda rows: [row.update(klass=row.pop("label")) for row in rows],
        ("p.csv",),
        {"got": "no label (or value)"},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_are_refused(case: str, tmp_path: Path) -> None:
    change, facts, fields = REFUSED[case]
    domain = foxes()
    rows = fox_rows(domain)
    change(rows)
    with raises(BadInput, *facts, **fields):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [domain, both()])


def test_all_problems_at_once(tmp_path: Path) -> None:
    domains = [foxes(), both()]
    rows = [{**row, "task": "", "value": ""} for row in fox_rows(domains[0])][:-2]
    for number in ("[1, 2]", "[3, 4]"):
        key = domains[1].test.key(0)
        row = {"domain": "both", "image": key, "task": "number", "label": "", "value": number}
        rows.append(row)
    with raises(BadInput, "p.csv: foxes/classify", "p.csv: both/number") as error:
        evaluate_predictions(written(tmp_path / "p.csv", rows), domains)
    assert [one.got for one in error.value.errors] == [None, None, key]


@pytest.mark.parametrize(
    ("value", "fact", "got"),
    [
        ("[1]", "2 outputs", "1 numbers"),
        ("fast", "2 outputs", "1 numbers"),
        ("[1, NaN]", "finite", UNSET),
    ],
)
def test_wrong_numbers_are_refused(value: str, fact: str, got: object, tmp_path: Path) -> None:
    domain = both()
    row = {"image": domain.test.key(0), "task": "number", "value": value}
    with raises(BadInput, "line 2, column value", fact, got=got):
        evaluate_predictions(written(tmp_path / "p.csv", [row]), [domain])


def test_kinds_splits_and_files_that_cannot_be_evaluated(tmp_path: Path) -> None:
    rooms = Domain("rooms", dense_source(12), size=(10, 14))
    rows = [{"image": rooms.test.key(0), "task": "depth", "value": 1.0}]
    with raises(BadInput, "line 2", "rooms/depth", got="depth", available=["classify", "regress"]):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [rooms])
    rows[0].pop("task")
    with raises(BadInput, "line 2", "rooms", got="no task", available=["normals"]):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [rooms])
    with raises(BadInput, got="tests", available=["test"]):
        evaluate_predictions(tmp_path / "p.csv", [rooms], "tests")
    with raises(BadInput, "q.csv"):
        evaluate_predictions(tmp_path / "q.csv", [rooms])


def test_classes_that_differ_only_in_case(tmp_path: Path) -> None:
    """An exact name is that class; a name that matches two classes is none."""
    listed = [
        Item(f"{i}", str(i), f"s{i}", split=s, labels={"classify": c})
        for i, (s, c) in enumerate(
            (s, c) for s in ("train", "val", "test") for c in ("a", "A", "b")
        )
    ]
    domain = Domain("d", Fake((Task("classify", "classify"),), listed), size=8)
    keys = [domain.test.key(i) for i in range(3)]
    exact = [{"image": k, "label": c} for k, c in zip(keys, ("a", "A", "b"), strict=True)]
    assert (
        evaluate_predictions(written(tmp_path / "p.csv", exact), [domain]).table().value("d") == 0
    )
    padded = [{"image": k, "label": c} for k, c in zip(keys, ("a ", " A", "B"), strict=True)]
    assert (
        evaluate_predictions(written(tmp_path / "p.csv", padded), [domain]).table().value("d") == 0
    )
    loose = [{"image": k, "label": c} for k, c in zip(keys, ("-a", "A_", "B"), strict=True)]
    found = evaluate_predictions(written(tmp_path / "p.csv", loose), [domain])
    assert found.table().value("d") == pytest.approx(200 / 3)
