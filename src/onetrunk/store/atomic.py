"""Atomic files and folders: written under a temporary name, synced to disk, and renamed.

A file or folder is never incomplete under its final name. A killed writer may leave one of these in
the same folder, which `clear_leftovers` removes or renames back:

- `.NAME.XXXXXXXX.part`: a file or folder that was being written or removed;
- `.NAME.old`: a folder that was being replaced. A folder with files cannot be renamed over, so the
  old one has this name until the new one has replaced it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{8}\.part|(?P<old>old))")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that gets its final name when the block ends without an error."""
    with atomic_path(path) as part, part.open("xb") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to; the file gets its final name when the block ends.

    For writers that take a path and not an open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile, whose files only their owner can read
    part = _beside(path)
    try:
        yield part
        replace_file(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; at the end it is renamed, and replaces an existing folder.

    The files in it are synced here. If the replacement fails, the old folder is put back.
    """
    make_folder(path.parent)
    part = _beside(path)
    try:
        part.mkdir()
        yield part
        for inner in part.rglob("*"):
            (sync_folder if inner.is_dir() else _sync)(inner)
        sync_folder(part)
        _replace_folder(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file with this content; text is written as UTF-8."""
    with atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def replace_file(part: Path, path: Path) -> None:
    """Sync a finished file and rename it to `path`, which is replaced."""
    _sync(part)
    os.replace(part, path)
    sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder, renaming it first, so that it is never incomplete under its name."""
    _remove_as(folder, folder.name)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    if new:
        folder.mkdir(parents=True, exist_ok=True)
    for each in new:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable; on Windows they always are."""
    if os.name != "nt":
        _sync(folder)


def clear_leftovers(folder: Path, names: re.Pattern[str]) -> None:
    """Remove or rename back what killed writers of files and folders named `names` left."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        match = LEFTOVER.fullmatch(path.name)
        if match is None or not names.fullmatch(match["name"]):
            continue
        if match["old"] and not (folder / match["name"]).exists():
            os.rename(path, folder / match["name"])
        elif path.is_dir():
            _remove_as(path, match["name"])
        else:
            path.unlink()


def _replace_folder(part: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        _remove_as(old, path.name)
        os.rename(path, old)
    try:
        os.rename(part, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    _remove_as(old, path.name)


def _remove_as(folder: Path, name: str) -> None:
    """Remove a folder after renaming it to a temporary name of `name`."""
    if folder.exists():
        part = _beside(folder.with_name(name))
        os.rename(folder, part)
        shutil.rmtree(part, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
