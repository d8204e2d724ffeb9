"""The official layout of the Visual Decathlon."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from onetrunk.errors import BadInput
from tests.helpers.errors import raises


def test_splits_and_classes(built: Any, opened: Any) -> None:
    built("decathlon")
    for name in ("decathlon:decathlon/dtd", "decathlon:decathlon:dtd"):
        source = opened(name)
        items = list(source.items())
        assert source.tasks[0].classes == ("banded", "dotted")  # in the order of their ids
        assert [i.split for i in items] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
        assert items[0].key == "data/dtd/train/0001/000001.jpg"
        assert items[0].labels == {"classify": "banded"}
        assert items[-1].labels == {"classify": None}


def test_images_as_the_archives_unpack(built: Any, opened: Any, tmp_path: Path) -> None:
    built("decathlon")
    home = tmp_path / "decathlon"
    (home / "decathlon-1.0").mkdir()
    shutil.move(home / "annotations", home / "decathlon-1.0/annotations")
    shutil.move(home / "data", home / "decathlon-1.0-data")
    items = list(opened("decathlon:decathlon/dtd").items())
    assert items[0].key == "dtd/train/0001/000001.jpg"
    assert not any(i.stamp == "missing" for i in items)


def test_classes_of_one_name_keep_apart(built: Any, opened: Any, tmp_path: Path) -> None:
    built("decathlon")
    for path in (tmp_path / "decathlon/annotations").iterdir():
        path.write_text(path.read_text().replace("dotted", "banded"))
    source = opened("decathlon:decathlon/dtd")
    assert source.tasks[0].classes == ("banded (200000001)", "banded (200000002)")


def test_problems_are_named(built: Any, opened: Any, tmp_path: Path) -> None:
    built("decathlon")
    with raises(BadInput, got="dtt", available=["dtd"]):
        opened("decathlon:decathlon/dtt")
    with raises(BadInput, "decathlon:nowhere", got="nowhere", available=["decathlon"]):
        opened("decathlon:nowhere/dtd")
    path = tmp_path / "decathlon/annotations/dtd_train.json"
    document = json.loads(path.read_text())
    document["annotations"].append({"id": 99, "image_id": 1, "category_id": 200000002})
    path.write_text(json.dumps(document))
    with raises(BadInput, "dtd_train.json", "one class"):
        list(opened("decathlon:decathlon/dtd").items())
    path.write_text("{")
    with raises(BadInput, "dtd_train.json", "JSON"):
        opened("decathlon:decathlon/dtd")


def test_without_test_annotations(built: Any, opened: Any, tmp_path: Path) -> None:
    built("decathlon")
    (tmp_path / "decathlon/annotations/dtd_test_stripped.json").unlink()
    source = opened("decathlon:decathlon/dtd")
    assert source.notes == ["no annotations of test"]
    assert len(list(source.items())) == 6
