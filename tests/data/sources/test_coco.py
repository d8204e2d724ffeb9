"""COCO: maps painted from all its kinds of masks, categories, and hostile annotations."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.files.coco_annotations import compact, paint
from onetrunk.data.pixels import BadImage
from onetrunk.errors import BadInput, Missing

pytest.importorskip("pycocotools")
from pycocotools import mask as tool

from tests.helpers.errors import raises

INDEX = {3: 1, 18: 2}


def row(segmentation: Any, category: int = 3, crowd: int = 0) -> dict[str, Any]:
    return compact(
        {"image_id": 1, "category_id": category, "iscrowd": crowd, "segmentation": segmentation}
    )


def test_small_over_large_crowds_unlabelled(built: Any, opened: Any) -> None:
    source = opened(built("coco"))
    assert source.tasks[0].classes == ("background", "car", "dog")
    first, second, *_ = source.items()
    labels = source.target(first.where, "segment")
    expected = np.zeros((9, 7), np.uint8)
    expected[1:5, 1:5] = 2
    expected[2:4, 2:4] = 1
    expected[:, 6] = 255
    assert np.array_equal(labels, expected)
    assert not source.target(second.where, "segment").any()


def test_categories_in_an_image(built: Any, opened: Any) -> None:
    source = opened(built("coco"), ["multilabel"])
    items = list(source.items())
    assert [i.labels["multilabel"] for i in items] == [("car", "dog"), (), (), ("car", "dog"), ()]
    assert [i.split for i in items] == ["train"] * 3 + ["val"] * 2
    assert items[0].key == "train2017/000000000000.jpg"


def _decode(packed: Any) -> Any:
    with warnings.catch_warnings():  # pycocotools uses deprecated parts of numpy
        warnings.simplefilter("ignore", DeprecationWarning)
        return tool.decode(packed)


def test_masks_agree_with_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.asfortranarray(rng.random((31, 23)) < 0.4, np.uint8)
        packed = tool.encode(mask)
        text = {"size": [31, 23], "counts": packed["counts"].decode()}
        found = paint({"height": 31, "width": 23}, [row(text)], INDEX)
        assert np.array_equal(found, mask)
        polygon = (rng.random(10) * 30).tolist()
        merged = tool.merge(tool.frPyObjects([polygon], 31, 23))
        wanted = _decode(merged)
        assert np.array_equal(paint({"height": 31, "width": 23}, [row([polygon])], INDEX), wanted)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [9, 7], "counts": [0, 10**9]},
        {"size": [9, 7], "counts": [0, 5]},
        {"size": [9, 7], "counts": [-1, 64]},
        {"size": [90, 70], "counts": [6300]},
        {"size": [9, 7], "counts": "\x7f\x7f\x7f"},
        {"size": [9, 7], "counts": "o" * 1000},
        {"size": [9, 7]},
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[0, 0, float("nan"), 0, 3, 3]],
        [[0, 0, 3, 3]],
        [["a", "b", "c", "d", "e", "f"]],
    ],
)
def test_hostile_masks_make_a_bad_image(shape: Any) -> None:
    with pytest.raises(BadImage):
        paint({"height": 9, "width": 7}, [row(shape)], INDEX)


def test_absurd_sizes_make_a_bad_image() -> None:
    for size in ({"height": 10**6, "width": 10**6}, {"height": -1, "width": 3}, {}):
        with pytest.raises(BadImage):
            paint(size, [], INDEX)


def test_one_file_and_the_folder_of_its_images(built: Any, opened: Any, tmp_path: Path) -> None:
    built("coco")
    for name in (
        "coco:coco/annotations/instances_val2017.json",
        "coco:coco/annotations/instances_val2017.json:coco/val2017",
    ):
        assert [i.split for i in opened(name).items()] == ["val", "val"]
    (tmp_path / "elsewhere").mkdir()
    with raises(BadInput, "instances_val2017.json", "images"):
        list(opened("coco:coco/annotations/instances_val2017.json:elsewhere").items())


def test_images_of_a_file_without_annotations_are_not_labelled(
    built: Any, opened: Any, tmp_path: Path
) -> None:
    built("coco")
    path = tmp_path / "coco/annotations/instances_val2017.json"
    document = json.loads(path.read_text())
    del document["annotations"]
    path.write_text(json.dumps(document))
    source = opened("coco:coco", ["segment", "multilabel"])
    last = list(source.items())[-1]
    assert last.labels == {"multilabel": None}
    assert source.target(last.where, "segment") is None


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda d: d["annotations"][0].update(category_id=99), "label outside the classes"),
        (lambda d: d["annotations"][0].update(image_id=99), "unknown image"),
        (lambda d: d["images"][0].update(file_name="../../x.jpg"), "leads out"),
        (lambda d: d["images"][0].pop("id"), "expected id"),
        (lambda d: d.pop("images"), "expected a table"),
        (lambda d: d["categories"].append({"id": 3, "name": "x"}), "two categories"),
        (
            lambda d: d["categories"].extend({"id": 100 + i, "name": str(i)} for i in range(260)),
            "at most 254",
        ),
    ],
)
def test_problems_are_named(
    change: Any, fact: str, built: Any, opened: Any, tmp_path: Path
) -> None:
    built("coco")
    path = tmp_path / "coco/annotations/instances_train2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(BadInput) as caught:
        list(opened("coco:coco/annotations/instances_train2017.json").items())
    assert fact in str(caught.value)


def test_two_files_of_one_split(built: Any, opened: Any, tmp_path: Path) -> None:
    built("coco")
    annotations = tmp_path / "coco/annotations"
    text = (annotations / "instances_train2017.json").read_text()
    (annotations / "instances_train2014.json").write_text(text)
    with raises(BadInput, available=["instances_train2014.json", "instances_train2017.json"]):
        opened("coco:coco")


def test_without_the_package(built: Any, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = built("coco")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with raises(Missing, try_="onetrunk[coco]"):
        opened(name)
    assert len(list(opened(name, ["multilabel"]).items())) == 5  # needs no masks
