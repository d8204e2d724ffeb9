"""Atomic files and folders: complete or absent, with the permissions of any other file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from onetrunk.store.atomic import (
    atomic,
    atomic_folder,
    atomic_path,
    clear_leftovers,
    remove_folder,
    write_atomic,
)


def test_text_and_bytes_are_written_with_missing_parent_folders(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    write_atomic(path, "ø\n")
    assert path.read_bytes() == "ø\n".encode()
    write_atomic(path, b"\0\1")
    assert path.read_bytes() == b"\0\1"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail() -> None:
        with atomic(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic(path) as file:
        file.write(b"part")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"part"


def test_content_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def renamed(a: str, b: str) -> None:
        order.append("rename")
        replace(a, b)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", renamed)
    write_atomic(tmp_path / "file", "x")
    assert order == ["file", "rename", *([] if os.name == "nt" else ["folder"])]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_those_of_any_other_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1


def test_a_writer_that_takes_a_path_is_atomic_too(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_path(tmp_path / "file") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with atomic_path(tmp_path / "file") as part:
        part.write_text("complete")
        assert not (tmp_path / "file").exists()
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "file").read_text() == "complete"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_replaces_the_old_one_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "deep/model"
    for text in ("old", "new"):
        with atomic_folder(place) as part:
            (part / "inner").mkdir()
            (part / "inner/file").write_text(text)
            assert not (place / "inner/file").exists() or text == "new"
        assert (place / "inner/file").read_text() == text
    assert os.listdir(place.parent) == ["model"]


def test_a_folder_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"

    def write(text: str) -> None:
        with atomic_folder(place) as part:
            (part / text).touch()
            if text == "broken":
                raise KeyboardInterrupt

    write("old")
    with pytest.raises(KeyboardInterrupt):
        write("broken")
    assert os.listdir(place) == ["old"]
    rename = os.rename

    def refuse(a: Path, b: Path) -> None:
        if Path(a).name.endswith(".part"):
            raise OSError
        rename(a, b)

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(OSError):
        write("new")
    assert os.listdir(place) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_half_removed_folder_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        remove_folder(tmp_path / "model")
    assert [re.sub("[0-9a-f]{8}", "X", name) for name in os.listdir(tmp_path)] == [".model.X.part"]
    clear_leftovers(tmp_path, re.compile("model"))
    assert os.listdir(tmp_path) == []
    remove_folder(tmp_path / "model")


def test_leftovers_are_cleared_by_name(tmp_path: Path) -> None:
    for name in (".a.old", ".b.old", "b", ".c.00000000.part", ".mine.old", ".mine.0a1b2c3d.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".d.00000000.part").touch()
    clear_leftovers(tmp_path, re.compile("[a-d]"))
    assert sorted(os.listdir(tmp_path)) == [".mine.0a1b2c3d.part", ".mine.old", "a", "b"]
    clear_leftovers(tmp_path / "missing", re.compile("a"))
