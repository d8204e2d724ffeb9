"""Map files: the legend of class colours, depth in millimetres, inverse depth."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from onetrunk.cli.map_files import Maps, colours, legend, millimetres, palette
from onetrunk.data.files.targets import read_target
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises

IMAGE = np.full((4, 6, 3), 128, np.uint8)


@pytest.mark.parametrize("count", [1, 13, 70])
def test_the_legend_shows_the_colour_of_every_class(count: int) -> None:
    task = Task("parts", "segment", tuple(f"class {i} \x1b[31mß" for i in range(count)))
    picture = legend(task)
    drawn = np.asarray(picture).reshape(-1, 3)
    for colour in palette()[:count]:
        assert (drawn == colour).all(1).sum() >= 100
    assert picture.height <= 700


def test_depth_is_stored_as_millimetres(tmp_path: Path) -> None:
    metres = np.array([[0.0012, 2.5, 70, -1, 9.9994, 0.5]], np.float32).repeat(4, 0)
    expected = [1, 2500, 65_535, 0, 9999, 500]
    assert millimetres(metres)[0].tolist() == expected
    depth = Task("depth", "depth", unit="m")
    Maps(tmp_path).write(PurePosixPath("a.jpg"), IMAGE, {depth: metres})
    again = read_target(depth, tmp_path / "a.depth.png")
    np.testing.assert_allclose(again[0], np.array(expected) / 1000)
    assert Image.open(tmp_path / "a.depth.png").mode.startswith("I")
    np.testing.assert_array_equal(np.load(tmp_path / "a.depth.npy"), metres)


def test_inverse_depth_has_no_picture_in_millimetres(tmp_path: Path) -> None:
    near = Task("depth", "depth", unit="disparity")
    values = np.array([[0.01, 0.4]], np.float32).repeat(4, 0).repeat(3, 1)
    Maps(tmp_path).write(PurePosixPath("a.jpg"), IMAGE, {near: values})
    assert sorted(p.name for p in tmp_path.glob("[!.]*") if p.is_file()) == [
        "a.depth.npy",
        "a.depth.overlay.png",
    ]
    inverse, metres = colours(near, values), colours(Task("depth", "depth"), 1 / values)
    np.testing.assert_array_equal(inverse, metres)  # near is bright in both


def test_classes_and_legend_are_written_once_per_folder(tmp_path: Path) -> None:
    task = Task("parts", "segment", ("sky", "sea"))
    maps = Maps(tmp_path)
    for name in ("a.png", "b.png"):
        maps.write(PurePosixPath(name), IMAGE, {task: np.ones((4, 6), np.uint8)})
    assert (tmp_path / "parts.classes.txt").read_text() == "sky\nsea\n"
    assert len(list(tmp_path.glob("*.legend.png"))) == 1
    assert maps.count == 2


def test_maps_are_not_mixed_with_other_files(tmp_path: Path) -> None:
    depth, values = Task("depth", "depth"), np.ones((4, 6), np.float32)
    folder = tmp_path / "maps"
    Maps(folder).write(PurePosixPath("a.jpg"), IMAGE, {depth: values})
    Maps(folder).write(PurePosixPath("a.jpg"), IMAGE, {depth: values})  # its own folder
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with raises(BadInput, tmp_path / "photos", "a.jpg", try_="another"):
        Maps(tmp_path / "photos")
