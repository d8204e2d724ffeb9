"""Atomic files: whole or not there, and readable by whom the user's mask allows."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from onetrunk.store.atomic import atomic, write_atomic


def test_text_and_bytes_are_written_with_the_folders_on_the_way(tmp_path: Path) -> None:
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


def test_nobody_sees_a_part_of_it(tmp_path: Path) -> None:
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
