"""`onetrunk predict --out`: tables as CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onetrunk.cli import prediction_files
from onetrunk.cli.prediction_rows import CsvRows
from onetrunk.data.task import Task
from onetrunk.nn.predict import Prediction
from onetrunk.nn.saving import load, save
from tests.helpers.small import DENSE, domain, network
from tests.helpers.verbs import Ran, one_line

Onetrunk = Callable[..., Ran]
EVIL = "=cmd|' /C calc'!A0"
KINDS = (
    Task("classify", "classify", ("a", EVIL, "-1")),
    Task("tags", "multilabel", ("x", "y")),
    Task("age", "regress"),
    Task("place", "regress", outputs=2),
    Task("near", "embed", ("p", "q")),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with two domains."""
    folder = tmp_path_factory.mktemp("models") / "model"
    save(network([domain("kinds", *KINDS), domain("rooms", *DENSE, KINDS[2])]), folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write five photos, and a file that is no image and comes first."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "+bad.png").write_text("no image")
    return folder


def expected(model: Path, photos: Path) -> list[Prediction]:
    found: list[Prediction] = load(model).predict(
        [photos / f"{i}.png" for i in range(5)], domain="kinds"
    )
    return found


def predict(onetrunk: Onetrunk, model: Path, *words: str) -> Ran:
    return onetrunk("predict", str(model), "photos", "--domain", "kinds", *words)


def test_a_csv_file_has_a_row_per_image_and_the_reason_for_bad_ones(
    onetrunk: Onetrunk, model: Path, photos: Path
) -> None:
    ran = predict(onetrunk, model, "--out", "new/p.csv", "--top", "2")
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert "1 of 6 images could not be read" in ran.err and "wrote new/p.csv" in ran.err
    bad, *rows = csv.DictReader((photos.parent / "new/p.csv").open())
    assert bad["file"] == "photos/+bad.png" and "not an image" in bad["error"]
    assert {value for key, value in bad.items() if key not in ("file", "domain", "error")} == {""}
    for row, one in zip(rows, expected(model, photos), strict=True):
        scores = sorted(one["classify"]["scores"].items(), key=lambda pair: -pair[1])
        names = [name if name != EVIL else f"'{EVIL}" for name, _ in scores]
        assert [row["classify"], row["classify_top2"]] == names[:2]
        assert float(row["classify_score"]) == pytest.approx(scores[0][1], rel=1e-5)
        assert float(row["classify_top2_score"]) == pytest.approx(scores[1][1], rel=1e-5)
        assert row["tags"] == ";".join(one["tags"]["labels"])
        assert {row["tags_top1"], row["tags_top2"]} == {"x", "y"}
        assert float(row["age"]) == pytest.approx(one["age"]["values"][0])
        assert float(row["place_1"]) == pytest.approx(one["place"]["values"][1])
        assert float(row["near_3"]) == pytest.approx(float(one["near"]["vector"][3]), abs=1e-6)
        assert row["error"] == ""


def test_json_lines_hold_all_scores_or_the_highest(
    onetrunk: Onetrunk, model: Path, photos: Path
) -> None:
    for top, count in ((None, 3), (2, 2)):
        words = () if top is None else ("--top", str(top))
        assert predict(onetrunk, model, "--out", "p.jsonl", "--force", *words).code == 0
        bad, *rows = map(json.loads, (photos.parent / "p.jsonl").read_text().splitlines())
        assert set(bad) == {"file", "domain", "error"}
        for row, one in zip(rows, expected(model, photos), strict=True):
            assert len(row["classify"]["scores"]) == count
            best = next(iter(row["classify"]["scores"])) if top else row["classify"]["label"]
            assert best == one["classify"]["label"]


def test_a_parquet_file_has_typed_columns(onetrunk: Onetrunk, model: Path, photos: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert predict(onetrunk, model, "--out", "p.parquet").code == 0
    table = parquet.read_table(photos.parent / "p.parquet")
    assert table.column_names == [
        *("file", "domain", "classify", "classify_score", "tags", "age", "place_0", "place_1"),
        *("near", "error"),
    ]
    bad, *rows = table.to_pylist()
    assert bad["classify"] is None and "not an image" in bad["error"]
    for row, one in zip(rows, expected(model, photos), strict=True):
        assert row["classify"] == one["classify"]["label"]  # as it is: no spreadsheet runs it
        assert row["classify_score"] == pytest.approx(one["classify"]["score"])
        assert row["tags"] == one["tags"]["labels"]
        assert row["near"] == pytest.approx(list(one["near"]["vector"]))
        assert row["error"] is None


def test_a_parquet_file_is_written_in_groups_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(prediction_files, "ROW_GROUP", 2)
    with prediction_files.prediction_file(tmp_path / "p.PARQUET", [Task("age", "regress")]) as rows:
        for i in range(4):
            rows.write(f"{i}.png", "people", {"age": {"values": [float(i)]}}, {})
        rows.write_error("4\udcff.png", "people", "not an image")  # a name that is no text
    file = parquet.ParquetFile(tmp_path / "p.PARQUET")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 1]
    table = file.read().to_pydict()
    assert table["age"] == [0, 1, 2, 3, None]
    assert table["file"][-1] == r"4\udcff.png" and table["error"][-1] == "not an image"


def test_an_existing_file_is_replaced_only_with_force(
    onetrunk: Onetrunk, model: Path, photos: Path
) -> None:
    path = photos.parent / "p.csv"
    path.write_text("mine")
    assert "--force" in one_line(predict(onetrunk, model, "--out", "p.csv"))
    assert path.read_text() == "mine"
    assert predict(onetrunk, model, "--out", "p.csv", "--force").code == 0
    assert path.read_text().startswith("file,domain,")


def test_a_failure_leaves_no_file(
    onetrunk: Onetrunk, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CsvRows, "write", fail)
    assert predict(onetrunk, model, "--out", "p.csv").code == 1
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


@pytest.mark.usefixtures("photos")
def test_files_that_cannot_be_written_are_refused_before_the_work(
    onetrunk: Onetrunk, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = one_line(predict(onetrunk, model, "--out", "photos/0.png/p.csv"))
    assert "0.png is not a folder" in line
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "onetrunk[parquet]" in one_line(predict(onetrunk, model, "--out", "p.parquet"))


def test_only_unreadable_images_are_a_failure_and_are_listed(
    onetrunk: Onetrunk, model: Path, photos: Path
) -> None:
    words = ("predict", str(model), "photos/+bad.png", "--domain", "kinds", "--out", "p.csv")
    assert "1 of 1 images" in one_line(onetrunk(*words), 1)
    (row,) = csv.DictReader((photos.parent / "p.csv").open())
    assert row["file"] == "photos/+bad.png" and row["error"]


def test_maps_and_a_table_of_their_files(onetrunk: Onetrunk, model: Path, photos: Path) -> None:
    words = ("predict", str(model), "photos", "--domain", "rooms")
    ran = onetrunk(*words, "--out", "maps/", "--out", "p.csv")
    assert ran.code == 0, ran.err
    _, *rows = csv.DictReader((photos.parent / "p.csv").open())
    assert len(rows) == 5
    for row in rows:
        assert all((photos.parent / row[task.name]).is_file() for task in DENSE)
        float(row["age"])
    assert "maps are not written" in onetrunk(*words, "--out", "q.csv").err


def test_the_temporary_table_is_beside_its_place(
    onetrunk: Onetrunk, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    write = CsvRows.write

    def spy(self: CsvRows, *words: object) -> None:
        seen.append(sorted(path.name for path in photos.parent.iterdir()))
        write(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(CsvRows, "write", spy)
    assert predict(onetrunk, model, "--out", "p.csv").code == 0
    assert "p.csv" not in seen[-1] and any(name.startswith(".p.csv.") for name in seen[-1])
