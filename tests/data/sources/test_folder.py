"""Folders: layouts, dense targets, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.data.drawing import signature
from onetrunk.data.pixels import BadImage, Pixels
from onetrunk.errors import BadInput
from onetrunk.store.places import mark
from tests.helpers.errors import raises


def test_classes_without_splits(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/dog/deep/er/1.JPG")
    photo(tmp_path / "p/cat/2.png")
    photo(tmp_path / "p/cat/.hidden.png")
    (tmp_path / "p/cat/notes.md").write_text("x")
    source = opened("folder:p")
    items = list(source.items())
    assert [(i.key, i.split, i.labels["classify"]) for i in items] == [
        ("cat/2.png", None, "cat"),
        ("dog/deep/er/1.JPG", None, "dog"),
    ]
    assert source.tasks[0].classes == ("cat", "dog")
    assert source.notes == ["ignored, not images by their endings: 1 (cat/notes.md)"]


def test_splits_have_their_usual_names(built: Any, opened: Any) -> None:
    items = list(opened(built("folder")).items())
    assert [i.split for i in items].count("val") == 2
    assert items[0].key == "test/cat/0.png"
    assert {i.labels["classify"] for i in items} == {"cat", "dog"}


def test_a_class_named_train_among_others_is_a_class(
    photo: Any, opened: Any, tmp_path: Path
) -> None:
    for name in ("bus", "car", "train"):
        photo(tmp_path / "p" / name / "1.png")
    assert opened("folder:p").tasks[0].classes == ("bus", "car", "train")


def test_splits_beside_other_folders_are_refused(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/train/cat/1.png")
    photo(tmp_path / "p/extra/1.png")
    with raises(BadInput, "folder:p", try_="extra"):
        opened("folder:p")


def test_a_text_file_named_jpg_is_listed_and_bad(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/cat/1.png")
    (tmp_path / "p/cat/2.jpg").write_text("not an image")
    source = opened("folder:p")
    items = list(source.items())
    assert [i.key for i in items] == ["cat/1.png", "cat/2.jpg"]
    with pytest.raises(BadImage, match="not an image"):
        Pixels((4, 4)).read(source.image("cat/2.jpg"))


def test_all_problems_are_reported_together(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/cat/1.png")
    photo(tmp_path / "p/loose.png")
    (tmp_path / "p/empty").mkdir()
    (tmp_path / "p/void").mkdir()
    with pytest.raises(BadInput) as caught:
        list(opened("folder:p").items())
    line = str(caught.value)
    assert "loose.png" in line
    assert "class folders without images: 2 (empty, void)" in line
    assert "\n" not in line


def test_a_folder_without_images_is_no_class(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/cat/deep/1.png")
    photo(tmp_path / "p/dog/1.png")
    (tmp_path / "p/cow/deep").mkdir(parents=True)
    (tmp_path / "p/cow/notes.md").write_text("x")
    source = opened("folder:p")
    assert len(list(source.items())) == 2
    assert source.tasks[0].classes == ("cat", "dog")
    assert "ignored, class folders without images: 1 (cow)" in source.notes


def test_a_class_with_images_in_one_split_is_a_class(
    photo: Any, opened: Any, tmp_path: Path
) -> None:
    for path in ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png"):
        photo(tmp_path / "p" / path)
    (tmp_path / "p/val/dog").mkdir()
    source = opened("folder:p")
    assert source.tasks[0].classes == ("cat", "dog")
    assert len(list(source.items())) == 3
    assert source.notes == []


def test_what_onetrunk_wrote_is_skipped_in_one_line(
    photo: Any, opened: Any, tmp_path: Path
) -> None:
    root = tmp_path / "p"
    for name in ("cat", "dog"):
        photo(root / name / "1.png")
    for run in ("runs/demo/universal", "runs/shop/seed-0", "cat/run"):
        (root / run / "checkpoints").mkdir(parents=True)
        (root / run / "recipe.toml").touch()
        photo(root / run / "picture.png")
    mark(root / "maps", "predicted maps")
    photo(root / "maps/1.overlay.png")
    Image.new("RGB", (8, 8)).save(root / "sheet.png", pnginfo=signature())
    source = opened("folder:p")
    assert [item.key for item in source.items()] == ["cat/1.png", "dog/1.png"]
    assert source.tasks[0].classes == ("cat", "dog")
    assert source.notes == ["ignored, written by onetrunk: 4 (cat/run, maps, runs, sheet.png)"]


@pytest.mark.parametrize("made", ["none", "empty", "file"])
def test_no_folder_to_read(made: str, opened: Any, tmp_path: Path) -> None:
    if made == "empty":
        (tmp_path / "p").mkdir()
    elif made == "file":
        (tmp_path / "p").write_text("x")
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInput) as caught:
        list(opened("folder:p").items())
    fact = {"none": "available: photos", "empty": "no images", "file": "this is a file"}[made]
    assert fact in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_links_stay_inside(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere/secret.png")
    photo(tmp_path / "p/cat/1.png")
    (tmp_path / "p/cat/inside.png").symlink_to(tmp_path / "p/cat/1.png")
    (tmp_path / "p/cat/out.png").symlink_to(tmp_path / "elsewhere/secret.png")
    (tmp_path / "p/cat/all").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p/cat/circle").symlink_to(tmp_path / "p/cat")
    source = opened("folder:p")
    assert [i.key for i in source.items()] == ["cat/1.png", "cat/inside.png"]
    outside, circles = source.notes
    assert "outside" in outside and "2 (cat/all, cat/out.png)" in outside
    assert "1 (cat/circle)" in circles
    with pytest.raises(BadImage, match="out of the source"):
        source.image("cat/out.png")
    with pytest.raises(BadImage, match="out of the source"):
        source.image("../elsewhere/secret.png")


@pytest.mark.skipif(os.name == "nt", reason="has no pipes in folders")
def test_a_pipe_is_not_opened(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/cat/1.png")
    os.mkfifo(tmp_path / "p/cat/2.png")
    assert [i.key for i in opened("folder:p").items()] == ["cat/1.png"]


def test_an_unreadable_folder_is_named(
    photo: Any, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "p/cat/1.png")
    photo(tmp_path / "p/dog/1.png")
    scandir = os.scandir

    def deny(path: Path) -> Any:
        if Path(path).name == "dog":  # root, as tests may run, reads everything
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with raises(BadInput, "folder:p", "dog: permission denied"):
        list(opened("folder:p").items())


def test_a_name_that_is_not_utf8_is_named(photo: Any, opened: Any, tmp_path: Path) -> None:
    path = photo(tmp_path / "p/cat/1.png")
    try:
        os.rename(path, os.fsencode(path.parent) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with raises(BadInput, "folder:p", "not UTF-8"):
        list(opened("folder:p").items())


def test_dense_targets_beside_the_images(built: Any, opened: Any) -> None:
    source = opened(built("dense"))
    assert [t.kind for t in source.tasks] == ["segment", "depth", "normals"]
    assert source.tasks[0].classes == ("wall", "floor", "ceiling")
    assert [i.key for i in source.items()] == [f"images/{i}.jpg" for i in range(4)]
    labels = source.target("images/1.jpg", "segment")
    assert labels[0, 0] == 255
    assert labels[1, 1] == 1
    assert source.target("images/2.jpg", "depth")[0, 0] == 3.5
    assert all(source.target("images/3.jpg", t) is None for t in ("segment", "depth", "normals"))


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_dense_targets_with_splits(layout: str, photo: Any, opened: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        image = photo(tmp_path / "p" / layout.format(split) / "a/1.png")
        target = Path(str(image).replace("images", "segment"))
        target.parent.mkdir(parents=True)
        Image.fromarray(np.full((9, 7), 4, np.uint8)).save(target)
    source = opened("folder:p")
    items = list(source.items())
    assert [i.split for i in items] == ["train", "val"]
    assert source.target(items[0].where, "segment")[0, 0] == 4
    assert source.tasks[0].classes == ("0", "1", "2", "3", "4")
    assert any("2 maps read" in note for note in source.notes)


def test_two_maps_and_a_class_of_one_image(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/images/cat/1.png")
    for folder in ("segment", "parts"):
        (tmp_path / "p" / folder / "cat").mkdir(parents=True)
        Image.fromarray(np.ones((9, 7), np.uint8)).save(tmp_path / "p" / folder / "cat/1.png")
    tasks = {
        "what": "classify",
        "parts": {"kind": "segment", "column": "parts", "classes": ["a", "b"]},
        "things": {"kind": "segment", "classes": ["a"]},
    }
    source = opened("folder:p", tasks)
    (item,) = source.items()
    assert item.labels == {"what": "cat"}
    assert source.target(item.where, "parts").max() == 1
    with pytest.raises(BadImage, match="things: class index 1 is outside the 1 classes"):
        source.target(item.where, "things")


def test_targets_that_match_no_image_are_refused(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/images/1.png")
    photo(tmp_path / "p/segment/other.png")
    with raises(BadInput, "task segment", "segment/"):
        list(opened("folder:p").items())


def test_tasks_that_a_folder_cannot_label(photo: Any, opened: Any, tmp_path: Path) -> None:
    photo(tmp_path / "p/cat/1.png")
    with raises(BadInput, got="regress", available=["classify"]):
        opened("folder:p", ["regress"])
    with raises(BadInput, got="depth", available=["classify"]):
        opened("folder:p", ["depth"])
