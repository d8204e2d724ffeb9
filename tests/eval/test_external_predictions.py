"""Tables of predictions: the same numbers as from our own model, and nothing left out unseen."""

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
from onetrunk.eval.evaluate import evaluate, outcomes
from onetrunk.eval.external_predictions import evaluate_predictions, find
from onetrunk.eval.intervals import differences
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from tests.helpers.fakes import Fake, dense_source, labelled, small

CLASSES = ("red fox", "Arctic_Fox")
Rows = list[dict[str, Any]]


def foxes(count: int = 40, **more: Any) -> Domain:
    return Domain("foxes", small(count, CLASSES, **more), size=12)


def both(count: int = 40) -> Domain:
    """A domain of two tasks, some images without a label of either."""
    chance = np.random.default_rng(0)
    listed = []
    for item in labelled(count, splits=("train", "train", "val", "test")):
        number = int(item.where)
        labels = {"what": item.labels["classify"], "much": (float(chance.normal()), 1.0 * number)}
        if number % 16 == 14:
            labels = {"what": labels["what"]}
        if number % 16 == 15:
            labels = {"much": labels["much"]}
        listed.append(replace(item, labels=labels))
    return Domain("both", Fake((Task("what", "classify"), Task("much", "regress")), listed), size=8)


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def predicted(model: Universal, domain: Domain) -> Rows:
    """What a model says of every test image, as someone would write it down."""
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


def test_the_same_numbers_as_of_the_model_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    domains = [foxes(), both()]
    model = Universal(Trunk("resnet20"), domains)
    rows = [row for domain in domains for row in predicted(model, domain)]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    found = evaluate_predictions(written(tmp_path / "theirs.csv", rows), domains)
    expected = evaluate(model, domains)
    table = found.table()
    assert [r.metric for r in table.rows] == [r.metric for r in expected.rows if r.metric != "ece"]
    for row in table.rows:
        ours = expected.row(row.domain, row.task, row.metric)
        assert (row.count, row.headline) == (ours.count, ours.headline)
        assert row.value == pytest.approx(ours.value, rel=1e-5)
        assert (row.low is None) == (ours.low is None)
    assert found.notes == () and found.name == "theirs.csv"
    for difference in differences(outcomes(model, domains), found.outcomes()):
        assert difference.value == pytest.approx(0, abs=1e-5) and not difference.clear


def test_every_kind_of_table_and_short_forms(tmp_path: Path) -> None:
    domain = foxes()
    rows = fox_rows(domain)
    value = evaluate_predictions(written(tmp_path / "a.csv", rows), [domain]).table().value("foxes")
    short = [{"image": f"C:\\data\\x\\{row['image']}", "label": "Red_Fox"} for row in rows]
    found = evaluate_predictions(written(tmp_path / "b.csv", short), [domain])
    assert found.table().value("foxes") == value == 50
    lines = tmp_path / "c.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert evaluate_predictions(lines, [domain]).table().value("foxes") == value
    assert evaluate_predictions(lines, [domain], "test").evaluation_result.split == "test"


def test_images_by_the_longest_end_of_a_path() -> None:
    places = {"1.png": 0, "a/1.png": -1, "b/c/1.png": 2}
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
    assert {path: find(path, places) for path in ends} == ends


def test_what_does_no_harm_is_counted_and_named(
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
        "p.csv: no such domain here: birds (1)",
        "p.csv: both: no predictions: left out",
        "p.csv: foxes/classify: 1 rows name no image of it: nowhere\\x1b.png",
        f"p.csv: foxes/classify: 1 rows are of no readable test image: {train}",
        f"p.csv: foxes/classify: 1 images twice, with the same prediction: {rows[3]['image']}",
        "p.csv: foxes/classify: 1 predictions are none of its classes, so wrong: wolf (1)",
    )
    assert capsys.readouterr().err.splitlines() == list(found.notes)
    assert found.table().domains == ("foxes",)
    assert found.table().value("foxes") == 60  # half of ten, and the wolf
    pairs = found.evaluation_result.confusions()["foxes"]["classify"]
    assert {pair["predicted"] for pair in pairs} == {"red fox", "(none of the classes)"}


def test_unreadable_images_need_no_prediction(tmp_path: Path) -> None:
    domain = foxes(images={"6": BadImage("torn")})
    rows = [*fox_rows(domain), {"domain": "foxes", "image": "0006.png", "label": "red fox"}]
    found = evaluate_predictions(written(tmp_path / "p.csv", rows), [domain])
    assert found.table().row("foxes").count == 9
    assert found.notes == ("p.csv: foxes/classify: 1 rows are of no readable test image: 0006.png",)


def test_images_without_a_label_need_no_prediction(tmp_path: Path) -> None:
    domain = both(64)
    label = domain.test.label("what")
    rows = [
        {"image": domain.test.key(i), "task": "what", "label": "a"}
        for i in range(len(label))
        if label[i] >= 0
    ]
    assert len(rows) < len(label)
    found = evaluate_predictions(written(tmp_path / "p.csv", rows), [domain])
    assert found.table().tasks("both") == ("what",)
    assert found.table().row("both").count == len(rows)


REFUSED: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "an image less": (
        lambda rows: rows.pop(4),
        "p.csv: foxes/classify: 1 of 10 test images have no prediction: 0022.png; try: mend",
    ),
    "an image misspelled": (
        lambda rows: rows[4].update(image="22.png"),
        "1 of 10 test .*: 0022.png; 1 rows name no image of it: 22.png",
    ),
    "two predictions": (
        lambda rows: rows.append({**rows[2], "label": "Arctic_Fox"}),
        "1 images have two different predictions: 0014.png",
    ),
    "no answer": (lambda rows: rows[3].update(label=" "), "p.csv: line 5: no label; next"),
    "other words": (
        lambda rows: [row.update(label="0") for row in rows],
        "no label is one of its classes: 0 .10.; available: Arctic_Fox, red fox",
    ),
    "another task": (
        lambda rows: [row.update(task="species") for row in rows],
        "line 2: foxes has no such task; got: 'species'; available: classify",
    ),
    "no domain": (
        lambda rows: rows[1].update(domain=""),
        "line 3: no domain; available: foxes, both",
    ),
    "no domain of ours": (
        lambda rows: [row.update(domain="wolves") for row in rows],
        "no row of a domain that is asked for; available: foxes, both",
    ),
    "no image column": (
        lambda rows: [row.update(file=row.pop("image")) for row in rows],
        "columns domain, image, task, and label or value; got: 'no image'; available: domain",
    ),
    "no domain column": (
        lambda rows: [row.pop("domain") for row in rows],
        "got: 'no domain'; available: image",
    ),
    "no label column": (
        lambda rows: [row.update(klass=row.pop("label")) for row in rows],
        r"got: 'no label \(or value\)'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    change, says = REFUSED[case]
    domain = foxes()
    rows = fox_rows(domain)
    change(rows)
    with pytest.raises(BadInput, match=says):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [domain, both()])


def test_all_problems_at_once(tmp_path: Path) -> None:
    domains = [foxes(), both()]
    rows = [{**row, "task": "", "value": ""} for row in fox_rows(domains[0])][:-2]
    for number in ("[1, 2]", "[3, 4]"):
        key = domains[1].test.key(0)
        row = {"domain": "both", "image": key, "task": "much", "label": "", "value": number}
        rows.append(row)
    with pytest.raises(BadInput) as caught:
        evaluate_predictions(written(tmp_path / "p.csv", rows), domains)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[1].strip() for line in lines] == ["foxes/classify", *["both/much"] * 2]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[1]", "has 2 outputs"),
        ("fast", "has 2 outputs; got: '1 numbers'"),
        ("[1, NaN]", "finite"),
    ],
)
def test_numbers_that_are_none(value: str, says: str, tmp_path: Path) -> None:
    domain = both()
    row = {"image": domain.test.key(0), "task": "much", "value": value}
    with pytest.raises(BadInput, match=f"line 2, column value.*{says}"):
        evaluate_predictions(written(tmp_path / "p.csv", [row]), [domain])


def test_kinds_that_a_table_cannot_hold(tmp_path: Path) -> None:
    rooms = Domain("rooms", dense_source(12), size=(10, 14))
    rows = [{"image": rooms.test.key(0), "task": "depth", "value": 1.0}]
    with pytest.raises(BadInput, match="of kinds; got: 'depth'; available: classify, regress"):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [rooms])
    rows[0].pop("task")
    with pytest.raises(BadInput, match="several tasks; got: 'no task'; available: normals"):
        evaluate_predictions(written(tmp_path / "p.csv", rows), [rooms])
    with pytest.raises(BadInput, match="unknown split; got: 'tests'; available: test"):
        evaluate_predictions(tmp_path / "p.csv", [rooms], "tests")
    with pytest.raises(BadInput, match="expected a file"):
        evaluate_predictions(tmp_path / "q.csv", [rooms])


def test_classes_that_differ_in_case_alone(tmp_path: Path) -> None:
    """An exact name is that class; one that could be two is none."""
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
    vague = [{"image": k, "label": c} for k, c in zip(keys, ("a ", " A", "B"), strict=True)]
    assert (
        evaluate_predictions(written(tmp_path / "p.csv", vague), [domain]).table().value("d") == 0
    )
    loose = [{"image": k, "label": c} for k, c in zip(keys, ("-a", "A_", "B"), strict=True)]
    found = evaluate_predictions(written(tmp_path / "p.csv", loose), [domain])
    assert found.table().value("d") == pytest.approx(200 / 3)
