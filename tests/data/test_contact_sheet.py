"""The contact sheet: a PNG of the images, complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.data.contact_sheet import (
    COLUMNS,
    colour_classes,
    colour_depth,
    colour_normals,
    contact_sheet,
)
from onetrunk.data.domain import Domain
from onetrunk.data.drawing import is_signed
from onetrunk.data.sources import Item
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, dense_source, labelled, small


def drawn(domain: Domain, path: Path, **more: Any) -> np.ndarray:
    contact_sheet(domain, path, **more)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def holds(sheet: np.ndarray, tile: np.ndarray) -> bool:
    """Return whether a tile is on the sheet, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)
    corner = (windows[..., 0, 0, 0, :] == tile[0, 0]).all(-1) if windows.ndim == 6 else None
    assert corner is not None
    for y, x in zip(*np.nonzero(corner[:, :, 0] if corner.ndim == 3 else corner), strict=True):
        if (sheet[y : y + tile.shape[0], x : x + tile.shape[1]] == tile).all():
            return True
    return False


def test_the_images_of_every_class_are_on_the_sheet(tmp_path: Path) -> None:
    domain = Domain("d", small(16), size=32)
    sheet = drawn(domain, tmp_path / "sheet.png")
    images, _ = domain.train.stored(np.arange(len(domain.train)))
    for image in images[:3]:
        assert holds(sheet, image.repeat(2, 0).repeat(2, 1))  # 32 pixels are drawn as 64
    assert sheet.shape[1] >= 4 * 64


def test_dense_targets_are_beside_their_image(tmp_path: Path) -> None:
    domain = Domain("d", dense_source(8), size=64)
    sheet = drawn(domain, tmp_path / "sheet.png")
    images, targets = domain.train.stored(np.array([0]))
    for tile in (
        images[0],
        colour_classes(targets["segment"][0]),
        colour_depth(targets["depth"][0]),
        colour_normals(targets["normals"][0]),
    ):
        assert holds(sheet, tile)


def test_large_images_are_reduced(tmp_path: Path) -> None:
    sheet = drawn(Domain("d", small(16), size=512), tmp_path / "sheet.png")
    assert max(sheet.shape) < 1500


@pytest.mark.parametrize("kind", ["multilabel", "regress", "embed"])
def test_every_kind_of_label_can_be_drawn(kind: Kind, tmp_path: Path) -> None:
    label: Any = 1.0 if kind == "regress" else ("a", "b") if kind == "multilabel" else "a"
    split = ("train", "val", "test")
    items = [Item(f"{i}", str(i), "s", split[i % 3], labels={"t": label}) for i in range(9)]
    items.append(Item("z", "50", "s", "train"))
    source = Fake((Task("t", kind),), items)
    assert drawn(Domain("d", source, size=16), tmp_path / "sheet.png").size > 0


def test_names_of_any_kind_can_be_written(tmp_path: Path) -> None:
    names = ("two\nlines", "tab\there", "日本", "bad\udcffbyte", "x" * 500, "🙂", "")
    items = labelled(42, names, ("train", "val", "test"))
    assert drawn(Domain("d", Fake(CLASSIFY, items), size=16), tmp_path / "sheet.png").size > 0


def test_many_classes_and_images_stay_within_bounds(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(100)]
    source = Fake(CLASSIFY, labelled(600, names, ("train", "train", "train", "val", "test")))
    sheet = drawn(Domain("d", source, size=8), tmp_path / "sheet.png")
    assert sheet.shape[1] < COLUMNS * 70 + 200
    assert sheet.shape[0] < 62 * 70


def test_an_empty_split_cannot_be_drawn(tmp_path: Path) -> None:
    items = [*labelled(9, ("a",), ("train",)), Item("v", "1", "s", "val")]
    items.append(Item("t", "bad", "s", "test", labels={"classify": "a"}))
    domain = Domain("d", Fake(CLASSIFY, items, {"bad": b"text"}), size=8)
    with raises(BadInput, "test split"):
        contact_sheet(domain, tmp_path / "sheet.png", split="test")


@pytest.mark.parametrize("name", ["sheet", "sheet.jpg", "sheet.txt", "."])
def test_a_path_that_is_not_a_png_is_refused_before_anything_is_read(
    name: str, tmp_path: Path
) -> None:
    source = small()
    with raises(BadInput, got=str(tmp_path / name), try_=".png"):
        contact_sheet(Domain("d", source, size=8), tmp_path / name)
    assert source.reads == []


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    domain = Domain("d", small(), size=8)
    with raises(BadInput, tmp_path / "file", try_="another"):
        contact_sheet(domain, tmp_path / "file/sheet.png")
    assert "decoded" not in vars(domain)  # found before the work


def test_a_sheet_is_recognized(tmp_path: Path) -> None:
    drawn(Domain("d", small(), size=8), tmp_path / "sheet.png")
    assert is_signed(tmp_path / "sheet.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no image")
    assert not is_signed(tmp_path / "photo.png")
    assert not is_signed(tmp_path / "text.png")


def test_missing_parent_folders_are_created(tmp_path: Path) -> None:
    drawn(Domain("d", small(), size=8), tmp_path / "a/b/sheet.png")


def test_colours_of_classes_depth_and_normals() -> None:
    classes = colour_classes(np.array([[0, 1, 255, 19]], np.uint8))
    assert classes[0, 2].tolist() == [0, 0, 0]
    assert len({tuple(c) for c in classes[0].tolist()}) == 4
    depth = colour_depth(np.array([[1.0, 5.0, 0.0]], np.float32)).astype(int).sum(-1)
    assert depth[0, 0] > depth[0, 1] > depth[0, 2] == 0
    normals = np.array([[[0, 0, 1], [1, 0, 0], [0, 0, 0]]], np.float32)
    assert colour_normals(normals)[0].tolist() == [[128, 128, 255], [255, 128, 128], [0, 0, 0]]
    assert not colour_depth(np.zeros((2, 2), np.float32)).any()
