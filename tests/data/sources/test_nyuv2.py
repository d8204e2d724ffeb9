"""`nyuv2:` arrays of the archive's shapes: what is read, which way normals point, broken files."""

from __future__ import annotations

import itertools
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.data.sources.nyuv2 import CLASSES, FACINGS, agreement, surface_normals
from onetrunk.errors import BadInput
from tests.data.sources.conftest import build_nyuv2, room
from tests.helpers.errors import raises


def test_arrays_of_the_archives_shapes(opened: Any, tmp_path: Path) -> None:
    source = opened(build_nyuv2(tmp_path, size=(288, 384)))
    assert [(t.name, t.kind, t.unit, len(t.classes)) for t in source.tasks] == [
        ("segment", "segment", "", 13),
        ("depth", "depth", "m", 0),
        ("normals", "normals", "", 0),
    ]
    assert source.size == (288, 384)
    assert [(i.key, i.split) for i in source.items()] == [
        *((f"train/image/{i}.npy", "train") for i in range(4)),
        *((f"val/image/{i}.npy", "test") for i in range(2)),
    ]
    image = np.load(tmp_path / "nyuv2/train/image/2.npy")
    stored = Pixels((288, 384)).read(source.image("train/2"))
    np.testing.assert_array_equal(stored, (image * 255).round())
    label = np.load(tmp_path / "nyuv2/train/label/2.npy")
    segment = source.target("train/2", "segment")
    assert segment.dtype == np.uint8
    np.testing.assert_array_equal(segment, np.where(label < 0, 255, label))
    depth = np.load(tmp_path / "nyuv2/train/depth/2.npy")
    np.testing.assert_allclose(source.target("train/2", "depth"), depth[..., 0], rtol=1e-6)
    assert CLASSES[4] == "floor"


@pytest.mark.parametrize("facing", list(itertools.product((1, -1), repeat=3)))
def test_normals_are_turned_to_our_axes(opened: Any, tmp_path: Path, facing: Any) -> None:
    source = opened(build_nyuv2(tmp_path, facing=facing))
    for where, turn in (("train/0", -0.3), ("val/1", -0.1)):
        expected = room(72, 96, turn)[1]
        np.testing.assert_allclose(source.target(where, "normals"), expected, atol=1e-6)
    words = [a[s < 0] for a, s in zip((("right", "left"), ("up", "down")), facing, strict=False)]
    assert any(f"x {words[0]}, y {words[1]}" in note for note in source.notes)
    opposite = FACINGS[7 - FACINGS.index("-".join([*words, ("viewer", "scene")[facing[2] < 0]]))]
    given = opened(f"nyuv2:nyuv2?normals={opposite}")  # used as it is
    np.testing.assert_allclose(
        given.target("train/0", "normals"), -room(72, 96, -0.3)[1], atol=1e-6
    )
    assert not any("measured" in note for note in given.notes)
    one, other = (next(iter(s.items())).stamp for s in (source, given))
    assert one != other  # the cache never takes one for the other


def test_surfaces_from_depth_are_those_of_the_room() -> None:
    depth, normals = room(288, 384, 0.3)
    measured, known = surface_normals(depth[..., 0])
    close = (measured * normals[:-4, :-4]).sum(-1) > 0.999
    assert known.mean() > 0.7
    assert close[known].mean() > 0.95  # a few pixels span the edge of two walls
    assert agreement([]).tolist() == [0, 0, 0]
    assert (
        agreement([(depth[..., 0], (normals * (1, -1, 1)).astype(np.float32))]) * (1, -1, 1) > 0.9
    ).all()


def test_normals_that_depth_does_not_explain_are_refused(
    built: Any, opened: Any, tmp_path: Path
) -> None:
    name = built("nyuv2")
    rng = np.random.default_rng(0)
    for i in range(4):
        noise = rng.normal(size=(72, 96, 3))
        noise /= np.linalg.norm(noise, axis=2, keepdims=True)
        np.save(tmp_path / f"nyuv2/train/normal/{i}.npy", noise)
    with raises(BadInput, "normals", available=["right-up-viewer"], try_="?normals="):
        opened(name)
    opened(f"{name}?normals=right-up-viewer")
    shutil.rmtree(tmp_path / "nyuv2/train/depth")
    shutil.rmtree(tmp_path / "nyuv2/val/depth")
    with raises(BadInput, "normals", "cosines x 0.00"):
        opened(name)
    assert [t.name for t in opened(name, ["segment"]).tasks] == ["segment"]


def test_normals_shortened_by_resizing_are_scaled_to_length_one(
    built: Any, opened: Any, tmp_path: Path
) -> None:
    path = tmp_path / "nyuv2/val/normal/0.npy"
    name = built("nyuv2")
    normals = np.load(path)
    normals[0] *= 0.7
    normals[1] = normals[2] * 0.3
    normals[3] = np.nan
    np.save(path, normals)
    source = opened(name)
    read = source.target("val/0", "normals")
    np.testing.assert_allclose(np.linalg.norm(read[0], axis=-1), 1, atol=1e-6)
    assert (read[1] == 0).all() and (read[3] == 0).all()
    np.save(path, normals * 2)
    with pytest.raises(BadImage, match="unit vectors"):
        source.target("val/0", "normals")


def test_an_existing_test_split_is_used(built: Any, opened: Any, tmp_path: Path) -> None:
    name = built("nyuv2")
    source = opened(name)
    assert "val images are used as the test split" in source.notes[0]
    shutil.copytree(tmp_path / "nyuv2/val", tmp_path / "nyuv2/test")
    source = opened(name)
    assert [i.split for i in source.items()] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert not any("no other" in note for note in source.notes)


def test_a_missing_kind_of_target_is_an_error_only_if_requested(
    built: Any, opened: Any, tmp_path: Path
) -> None:
    name = built("nyuv2")
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / f"nyuv2/{split}/normal")
    assert [t.name for t in opened(name).tasks] == ["segment", "depth"]
    with raises(BadInput, "task normals", got="normal", available=["depth", "label"]):
        opened(name, ["normals"])
    with raises(BadInput, got="classify", available=["segment", "depth"]):
        opened(name, ["classify"])
    tasks = {"rooms": {"kind": "segment", "column": "depth"}}
    assert opened(name, tasks).tasks[0].column == "depth"
    for split in ("train", "val"):
        for what in ("label", "depth"):
            shutil.rmtree(tmp_path / f"nyuv2/{split}/{what}")
    with raises(BadInput, available=["image"], try_="label or depth"):
        opened(name)


def test_missing_numbers_are_noted(built: Any, opened: Any, tmp_path: Path) -> None:
    name = built("nyuv2")
    (tmp_path / "nyuv2/train/image/1.npy").unlink()
    (tmp_path / "nyuv2/train/label/2.npy").unlink()
    (tmp_path / "nyuv2/train/image/notes.txt").write_text("none")
    source = opened(name)
    assert [i.key for i in source.items()][:3] == [f"train/image/{i}.npy" for i in (0, 2, 3)]
    assert source.target("train/2", "segment") is None
    notes = "\n".join(source.notes)
    assert "train: no image 1 of 0…3" in notes
    assert "train: 1 of 3 images have no label, so they are not labelled: 2" in notes
    assert "train: depth without image: 1" in notes


class Trap:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self) -> Any:
        return (Path("/nowhere/at-all").touch, ())


@pytest.mark.parametrize("what", ["image", "label", "depth", "normal"])
def test_broken_arrays_are_named_and_never_unpickled(
    built: Any, opened: Any, tmp_path: Path, what: str
) -> None:
    name = built("nyuv2")
    source = opened(name)
    path = tmp_path / f"nyuv2/train/{what}/0.npy"
    task = {"label": "segment", "depth": "depth", "normal": "normals"}.get(what)

    def read() -> Any:
        return source.image("train/0") if task is None else source.target("train/0", task)

    wrong = [
        np.array([Trap()], object),
        np.zeros((3, 4, 5, 6)),
        np.array(["text"]),
        np.full(np.load(path).shape, -7.0),
        np.full(np.load(path).shape, 300.0) if what != "depth" else np.zeros((4, 5, 2)),
    ]
    for array in wrong:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(BadImage, match=f"^{task or 'image'}: "):
            read()
    for content in (b"", b"\x93NUMPY", pickle.dumps(Trap()), path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(BadImage, match=f"^{task or 'image'}: "):
            read()
    if what == "label":
        np.save(path, np.full((72, 96), 0.5))
        with pytest.raises(BadImage, match="integers"):
            read()
        np.save(path, np.full((72, 96), 13))
        with pytest.raises(BadImage, match="outside the 13 classes"):
            read()


def test_a_map_of_another_size_makes_its_image_bad(built: Any, tmp_path: Path) -> None:
    name = built("nyuv2")
    np.save(tmp_path / "nyuv2/train/depth/1.npy", np.ones((50, 96, 1)))
    domain = Domain("rooms", name, size=(24, 32), base=tmp_path)
    assert set(domain.decoded.reasons.values()) == {"its depth is (50, 96), the image 72×96"}
    split = domain.splits["test"]
    assert len(split) == 2
    _, targets = split.batch(np.arange(2))
    assert targets["normals"].shape == (2, 3, 24, 32)
    assert "val cut from train by hash" in domain.index.how


@pytest.mark.parametrize(
    ("rest", "fact"),
    [
        ("nyuv2/train", "train/image/N.npy and val/image/N.npy"),
        ("nyuv2/train/image/0.npy", "expected a folder"),
        ("nowhere", "no such file or folder"),
        ("nyuv2?normal=up", "unknown key; got: 'normal'; available: normals"),
        ("nyuv2?normals=up", "value of normals; got: 'up'; available: "),
        ("nyuv2?normals=right-up-scene&normals=right-up-viewer", "normals occurs twice"),
        ("", "expected a path"),
    ],
)
def test_bad_names_are_refused(built: Any, opened: Any, rest: str, fact: str) -> None:
    built("nyuv2")
    with pytest.raises(BadInput) as caught:
        opened(f"nyuv2:{rest}")
    assert fact in str(caught.value)
    with raises(BadInput, "task segment", got="a", available=["bed"]):
        opened("nyuv2:nyuv2", {"segment": {"kind": "segment", "classes": ["a"]}})
