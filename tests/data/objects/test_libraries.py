"""DataFrames, datasets of Hugging Face, and paths as sources; no library is imported for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from tests.data.objects.files import Pair, photos
from tests.helpers.errors import raises
from tests.helpers.typed import typed


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    monkeypatch.chdir(tmp_path)
    return photos(tmp_path)


def opened(source: object, **settings: Any) -> Domain:
    return Domain("shop", source, size=8, **settings)


# -- frames


def table_of(pairs: list[Pair]) -> dict[str, list[Any]]:
    """Columns of a table, with labels missing in some rows."""
    return {
        "image": [path for path, _ in pairs],
        "label": [label for _, label in pairs],
        "number": [None if i % 10 == 0 else i % 3 for i in range(len(pairs))],
        "price": [None if i % 10 == 0 else i / 2 for i in range(len(pairs))],
        "item": [i // 2 for i in range(len(pairs))],
        "part": [("train", "train", "val", "test")[i // 2 % 4] for i in range(len(pairs))],
    }


@pytest.fixture(params=["pandas", "polars"])
def frame(request: pytest.FixtureRequest, pairs: list[Pair]) -> Any:
    library = pytest.importorskip(request.param)
    return library.DataFrame(table_of(pairs))


def test_a_frame_reads_as_the_table_of_the_same_rows(frame: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "tasks": {
            "what": {"kind": "classify", "column": "label"},
            "number": "classify",
            "price": "regress",
        },
        "split": "part",
        "group": "item",
    }
    rows = [",".join(map(str, frame.columns))]
    columns = [frame[name].to_list() for name in frame.columns]
    rows += [
        ",".join("" if cell is None or cell != cell else f"{cell:g}" if isinstance(cell, float)
        else str(cell) for cell in cells)
        for cells in zip(*columns, strict=True)
    ]  # fmt: skip
    (tmp_path / "shop.csv").write_text("\n".join(rows))
    inside, file = opened(frame, **settings), opened("table:shop.csv", **settings)
    assert inside.tasks == file.tasks
    assert list(inside.index.keys) == list(file.index.keys)
    assert inside.index.fingerprint == file.index.fingerprint
    assert inside.index.split.tolist() == file.index.split.tolist()
    for name, labels in file.index.labels.items():
        np.testing.assert_array_equal(inside.index.labels[name], labels)


def test_columns_of_a_frame_are_found_or_named(frame: Any) -> None:
    assert opened(frame).tasks[0].classes == ("cat", "dog")
    with raises(BadInput, got="photo", available=["image", "label"]):
        _ = opened(frame, image="photo").index
    with raises(BadInput, got="kind", available=["image", "label"]):
        _ = opened(frame, tasks={"x": {"kind": "classify", "column": "kind"}}).index


def test_paths_of_a_frame_may_be_full_or_start_at_base(pairs: list[Pair], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [(Path(path).absolute(), label) for path, label in pairs]
    full = opened(pandas.DataFrame(rows, columns=["path", "class"]), base=tmp_path)
    assert list(full.index.keys) == [path for path, _ in pairs]
    below = pandas.DataFrame([(p.removeprefix("photos/"), c) for p, c in pairs])
    below.columns = ["path", "class"]
    assert list(opened(below, base="photos").index.keys) == [
        p.removeprefix("photos/") for p, _ in pairs
    ]
    with raises(BadInput, "row 0", got="Image"):
        _ = opened(pandas.DataFrame({"image": [Image.new("RGB", (8, 8))], "label": ["a"]})).index
    with raises(BadInput, "at least one row"):
        _ = opened(pandas.DataFrame({"image": [], "label": []})).index
    with raises(BadInput, "a different name for every column"):
        _ = opened(pandas.DataFrame(pairs, columns=["image", "image"])).index


# -- datasets of Hugging Face


@pytest.fixture
def dataset(pairs: list[Pair]) -> Any:
    datasets = pytest.importorskip("datasets")
    columns = {"image": [p for p, _ in pairs], "label": [int(c == "dog") for _, c in pairs]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    return datasets.Dataset.from_dict(columns, features)


def test_a_dataset_is_read_by_content(dataset: Any) -> None:
    domain = opened(dataset)
    assert domain.tasks[0].classes == ("cat", "dog")
    assert sum(len(split) for split in domain.splits.values()) == 40
    turned = opened(dataset.select(range(39, -1, -1)))
    assert list(turned.index.keys) == list(domain.index.keys)
    assert turned.index.split.tolist() == domain.index.split.tolist()
    assert turned.index.fingerprint == domain.index.fingerprint
    assert opened(dataset.select(range(39))).index.fingerprint != domain.index.fingerprint


def doubled(dataset: Any) -> Any:
    """The rows of a dataset twice."""
    return pytest.importorskip("datasets").concatenate_datasets([dataset, dataset])


def splits_by(domain: Domain, name: Callable[[str], str]) -> dict[str, set[int]]:
    """The splits of the images by a name that is made from the key of each."""
    found: dict[str, set[int]] = {}
    for key, code in zip(domain.index.keys, domain.index.split, strict=True):
        found.setdefault(name(key), set()).add(int(code))
    return found


@pytest.mark.parametrize("split", [None, "train"])
def test_copies_in_a_dataset_share_a_split(dataset: Any, split: str | None) -> None:
    datasets = pytest.importorskip("datasets")
    twice = doubled(dataset)
    domain = opened(twice if split is None else datasets.DatasetDict({split: twice}))
    found = splits_by(domain, lambda key: key.rpartition("/")[2].partition("-")[0])
    assert len(found) == 40
    assert all(len(codes) == 1 for codes in found.values())
    assert set.union(*found.values()) == {0, 1, 2}


def test_groups_of_a_dataset_are_numbers_from_zero_on(dataset: Any) -> None:
    grouped = dataset.add_column("patient", [i // 8 for i in range(40)])
    domain = opened(grouped, group="patient")
    patients = dict(
        zip((item.key for item in domain.opened.items()), grouped["patient"], strict=True)
    )
    found = splits_by(domain, lambda key: str(patients[key]))
    assert len(found) == 5
    assert all(len(codes) == 1 for codes in found.values())
    with raises(BadInput, got="patent", available=["patient"]):
        _ = opened(doubled(grouped), group="patent").index


def test_a_column_of_paths_in_a_dataset_can_be_cast(pairs: list[Pair]) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"image": [path for path, _ in pairs], "label": [label for _, label in pairs]}
    with raises(BadInput, try_='cast_column("image", datasets.Image())'):
        _ = opened(datasets.Dataset.from_dict(columns)).index


def test_a_dictionary_of_datasets_has_splits(dataset: Any) -> None:
    datasets = pytest.importorskip("datasets")
    parts = dataset.train_test_split(10, seed=0)
    domain = opened(datasets.DatasetDict(parts))
    assert len(domain.test) == 10
    assert len(domain.train) + len(domain.val) == 30
    with raises(BadInput, got="IterableDataset", available=["a datasets.Dataset or DatasetDict"]):
        opened(dataset.to_iterable_dataset())


# -- paths, and libraries that are not imported


@pytest.mark.usefixtures("pairs")
def test_a_path_is_written_as_a_recipe_writes_it(tmp_path: Path) -> None:
    assert opened(Path("photos")).settings.source == "folder:photos"
    assert opened(Path("photos")).index.fingerprint == opened("folder:photos").index.fingerprint
    assert opened(tmp_path / "photos").settings.source == f"folder:{tmp_path / 'photos'}"
    (tmp_path / "shop.csv").write_text("image,label\nphotos/cat/00.png,cat\n")
    assert opened(Path("shop.csv")).settings.source == "table:shop.csv"
    (tmp_path / "notes.txt").write_text("")
    with raises(BadInput, got="notes.txt", available=[".csv"]):
        opened(Path("notes.txt"))


LEAN = """
import sys
import onetrunk as ot
from PIL import Image

pairs = [(Image.new("RGB", (8, 8), (i, 2 * i, 0)), i % 2) for i in range(40)]
print(len(ot.Domain("shop", pairs, size=8).train) > 0)
print([name for name in ("pandas", "polars", "datasets") if name in sys.modules])
"""


def test_no_library_is_imported(tmp_path: Path) -> None:
    code, printed = typed(LEAN, tmp_path)
    assert code == 0, printed
    assert printed.split("\n")[:2] == ["True", "[]"]
