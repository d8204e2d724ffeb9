"""Target files: the conventions, and every kind of broken file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.files.targets import read_target
from onetrunk.data.pixels import BadImage
from onetrunk.data.task import Task

SEGMENT = Task("segment", "segment", ("a", "b", "c"))
DEPTH = Task("depth", "depth")
NORMALS = Task("normals", "normals")


def npy(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def png(path: Path, array: NDArray[Any], mode: str | None = None) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def test_segment_from_grey_palette_and_16_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([7, 7, 7] * 256)  # colours have no meaning
    palette.putdata(labels.reshape(-1).tolist())
    palette.save(tmp_path / "p.png")
    for path in (
        png(tmp_path / "l.png", labels),
        tmp_path / "p.png",
        png(tmp_path / "i.png", labels.astype(np.uint16)),
    ):
        assert np.array_equal(read_target(SEGMENT, path), labels)
        assert np.array_equal(read_target(SEGMENT, path.read_bytes()), labels)


def test_depth_in_millimetres_and_in_metres(tmp_path: Path) -> None:
    path = png(tmp_path / "d.png", np.array([[0, 1500]], np.uint16))
    assert np.allclose(read_target(DEPTH, path), [[0, 1.5]])
    values = np.array([[1.5, np.nan, np.inf]])
    assert np.array_equal(read_target(DEPTH, npy(tmp_path / "d.npy", values)), [[1.5, 0, 0]])


def test_normals_are_unit_or_unknown(tmp_path: Path) -> None:
    array = np.array([[[0, 0, 1.01], [0, 0, 0], [np.nan] * 3]], np.float16)
    normals = read_target(NORMALS, npy(tmp_path / "n.npy", array))
    assert np.allclose(normals, [[[0, 0, 1], [0, 0, 0], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("task", "array", "reason"),
    [
        (DEPTH, np.ones((2, 2), np.int32), "floats"),
        (DEPTH, -np.ones((2, 2)), "below 0"),
        (DEPTH, np.ones((2, 2, 2)), "expected depth"),
        (DEPTH, np.array([[{"a": 1}]], object), "[Oo]bject arrays|Python objects|dtype"),
        (NORMALS, np.ones((2, 2, 3)) * 3, "unit vectors"),
        (NORMALS, np.ones((2, 2)), "expected normals"),
    ],
)
def test_invalid_arrays_are_bad_images(
    task: Task, array: NDArray[Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BadImage, match=reason):
        read_target(task, npy(tmp_path / "x.npy", array))


def test_invalid_pictures_are_bad_images(tmp_path: Path) -> None:
    colour = png(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(BadImage, match="RGB"):
        read_target(SEGMENT, colour)
    with pytest.raises(BadImage, match="class index 9 is outside the 3"):
        read_target(SEGMENT, png(tmp_path / "9.png", np.full((2, 2), 9, np.uint8)))
    with pytest.raises(BadImage, match="up to 300"):
        read_target(SEGMENT, png(tmp_path / "w.png", np.full((2, 2), 300, np.uint16)))
    with pytest.raises(BadImage, match="16-bit"):
        read_target(DEPTH, png(tmp_path / "8.png", np.zeros((2, 2), np.uint8)))
    (tmp_path / "t.png").write_bytes(colour.read_bytes()[:40])
    with pytest.raises(BadImage):
        read_target(SEGMENT, tmp_path / "t.png")


def test_a_false_header_costs_no_memory(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", np.ones((2, 2), np.float32))
    claimed = path.read_bytes().replace(b"(2, 2)", b"(99999, 99999)".ljust(6))
    path.write_bytes(claimed)
    with pytest.raises(BadImage):
        read_target(DEPTH, path)


def test_segment_from_an_array(tmp_path: Path) -> None:
    for kind in ("<i8", "u1", "<f4", "<f8"):
        labels = np.array([[0, 1], [2, 255 if kind == "u1" else -1]], kind)
        read = read_target(SEGMENT, npy(tmp_path / "a.npy", labels))
        assert read.dtype == np.uint8 and read.tolist() == [[0, 1], [2, 255]]
    for broken, reason in (
        (np.array([[0.5]]), "integers"),
        (np.array([[np.nan]]), "integers"),
        (np.array([[-2]]), "0 to 254"),
        (np.zeros((2, 2, 1)), r"\(H, W\)"),
        (np.array([[3]]), "outside the 3"),
        (np.array([[None]]), "objects in dtype"),
    ):
        with pytest.raises(BadImage, match=reason):
            read_target(SEGMENT, npy(tmp_path / "b.npy", broken))
