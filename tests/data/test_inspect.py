"""Inspection: counts, statistics, and every suspicious file by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.inspect import Inspection, inspect
from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, Label
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, dense_source, encoded, labelled, picture, small


def item(key: str, split: str = "train", label: Label = "a", where: str | None = None) -> Item:
    return Item(key, where or key, f"{key} {where}", split, labels={"classify": label})


def inspect_images(items: list[Item], images: Mapping[str, Raw | Exception]) -> Inspection:
    return inspect(Domain("d", Fake(CLASSIFY, items, images), size=16))


def blob(seed: int, size: int = 32) -> np.ndarray:
    """A soft picture, whose near copies are near."""
    coarse = np.random.default_rng(seed).integers(30, 220, (4, 4, 3))
    return coarse.repeat(size // 4, 0).repeat(size // 4, 1).astype(np.uint8)


def test_only_a_domain_is_inspected() -> None:
    for thing in ("folder:photos", [1]):
        with raises(BadInput, try_="ot.Domain"):
            inspect(cast(Domain, thing))


def test_the_hint_for_a_source_in_python_is_python() -> None:
    images = {str(i): b"text" for i in range(12)}
    domain = Domain("d", small(40, images=images), size=8)
    with raises(BadInput, try_="ot.inspect(domain).unreadable lists them") as error:
        domain.check()
    assert "allow_bad=True" in str(error.value) and "onetrunk data" not in str(error.value)
    assert len(inspect(domain).unreadable) == 12


PLAIN = [item(f"{s}{i}", s, "ab"[i % 2]) for s in ("train", "val", "test") for i in range(4)]
IMAGES = {i.key: blob(n) for n, i in enumerate(PLAIN)}


def test_splits_and_classes_are_counted() -> None:
    images = {"3": b"text"}
    found = inspect(Domain("d", small(26, ("b", "a"), images=images), size=8))
    assert found.splits == {"train": 13, "val": 6, "test": 6}
    (labels,) = found.tasks
    assert labels.classes == ["a", "b"]
    assert labels.counts["train"] == {"a": 6, "b": 7}
    assert labels.extremes() == (("b", 7), ("a", 6))
    assert labels.missing == {"train": [], "val": [], "test": []}
    assert found.unreadable == {"0003.png": "not an image, or of a format that is not supported"}
    assert found.refused == ""
    assert found.cache["pixels"]
    assert found.cache["bytes"] > 26 * 8 * 8 * 3


def test_sizes_and_statistics_are_of_readable_images() -> None:
    images = {str(i): picture(i, 10 + i, 50 - i) for i in range(24)}
    domain = Domain("d", small(24, images={**images, "0": b"text"}), size=8)
    found = inspect(domain)
    assert found.sizes == {"height": [11, 22, 33], "width": [27, 38, 49]}
    assert found.trained_at == [8, 8]
    assert found.mean == list(domain.pixels.mean)
    assert found.std == list(domain.pixels.std)


def test_a_refused_source_is_still_described() -> None:
    items = [*labelled(40, ("a",), ("train",)), item("v", "val"), item("w", "test")]
    images: dict[str, Raw | Exception] = {str(i): b"text" for i in range(40)}
    images |= {"v": picture(1), "w": picture(2)}
    found = inspect_images(items, images)
    assert "40 of 40 train images cannot be read" in found.refused
    assert len(found.unreadable) == 40
    assert found.splits["train"] == 0
    json.dumps(found.to_json(), allow_nan=False)


def test_a_source_without_readable_images_is_still_described() -> None:
    found = inspect_images(PLAIN, dict.fromkeys(IMAGES, b"text"))
    assert found.sizes == {"height": [], "width": []}
    assert len(found.unreadable) == 12
    assert found.refused


def test_the_same_content_in_two_splits_is_listed_once_as_an_exact_duplicate() -> None:
    items = [*PLAIN, item("copy", "test", "a", where="train0")]
    found = inspect_images(items, IMAGES)
    assert [sorted(pair) for pair in found.exact] == [["copy", "train0"]]
    assert found.near == []
    assert found.conflicts == []


def test_copies_within_a_split_are_not_listed() -> None:
    found = inspect_images([*PLAIN, item("copy", "train", "a", where="train0")], IMAGES)
    assert found.exact == []
    assert found.near == []


def test_the_same_content_under_two_labels_is_a_conflict() -> None:
    found = inspect_images([*PLAIN, item("copy", "train", "b", where="train0")], IMAGES)
    assert [sorted(pair) for pair in found.conflicts] == [["copy", "train0"]]


def test_an_unlabelled_copy_does_not_hide_a_conflict() -> None:
    more = [item("t1", label=None, where="train0"), item("t2", label="b", where="train0")]
    keys = ("train0", "train00", "train01")  # in the order of their names
    items = [
        *PLAIN,
        *(
            Item(k, "train0", k, "train", None, m.labels)
            for k, m in zip(keys[1:], more, strict=True)
        ),
    ]
    found = inspect_images(items, IMAGES)
    assert found.conflicts == [["train0", "train01"]]


def test_nearly_the_same_picture_in_two_splits_is_listed() -> None:
    near = np.clip(IMAGES["train0"].astype(int) + 2, 0, 255).astype(np.uint8)
    found = inspect_images([*PLAIN, item("near", "val")], {**IMAGES, "near": near})
    assert [sorted(pair) for pair in found.near] == [["near", "train0"]]
    assert found.exact == []


def test_blank_images_are_listed_as_blank_and_not_as_near_duplicates() -> None:
    blank = {f"blank-{s}": np.full((9, 9, 3), 3, np.uint8) for s in ("train", "test")}
    blank["blank-val"] = np.full((9, 9, 3), 4, np.uint8)
    items = [*PLAIN, *(item(f"blank-{s}", s) for s in ("train", "val", "test"))]
    found = inspect_images(items, {**IMAGES, **blank})
    assert sorted(found.suspicious["a single colour"]) == sorted(blank)
    assert found.near == []


def test_suspicious_files_are_listed_by_reason() -> None:
    odd = {"long.png": encoded(picture(1, 9, 90)), "tiny.jpg": encoded(picture(2, 4, 4))}
    found = inspect_images([*PLAIN, *(item(name) for name in odd)], {**IMAGES, **odd})
    assert found.suspicious == {
        "the file name has the ending of another format": ["tiny.jpg"],
        "one side over 5 times as long as the other": ["long.png"],
        "a side below 8 pixels": ["tiny.jpg"],
    }


def test_missing_classes_and_unlabelled_images_are_counted() -> None:
    items = [i for i in PLAIN if (i.split, i.labels["classify"]) != ("test", "b")]
    found = inspect_images([*items, item("bare", "val", None)], {**IMAGES, "bare": blob(99)})
    (labels,) = found.tasks
    assert labels.missing == {"train": [], "val": [], "test": ["b"]}
    assert labels.unlabelled == {"train": 0, "val": 1, "test": 0}
    assert any("test lacks 1 of 2 classes: b" in warning for warning in found.warnings)


@pytest.mark.parametrize("cache", [None, False])
def test_every_kind_of_task_is_described(cache: Literal[False] | None) -> None:
    tasks = (Task("tags", "multilabel"), Task("price", "regress"), Task("who", "embed"))
    split = ("train", "val", "test")
    items = [
        Item(
            f"{i}",
            str(i),
            f"{i}",
            split[i % 3],
            labels={"tags": ("x", "y")[: 1 + i % 2], "price": float(i), "who": "ab"[i // 3 % 2]},
        )
        for i in range(12)
    ]
    items.append(Item("z", "99", "z", "train"))
    found = inspect(Domain("d", Fake(tasks, items), size=8, cache=cache))
    tags, price, who = found.tasks
    assert tags.counts["train"] == {"x": 4, "y": 2}
    assert tags.unlabelled["train"] == price.unlabelled["train"] == who.unlabelled["train"] == 1
    assert price.numbers["train"] == [0, 4.5, 9]
    assert who.counts["val"] == {"a": 2, "b": 2}
    dense = inspect(Domain("d", dense_source(), size=8, cache=cache))
    assert [task.kind for task in dense.tasks] == ["segment", "depth", "normals"]
    for each in (found, dense):
        assert json.loads(json.dumps(each.to_json(), allow_nan=False)) == each.to_json()
