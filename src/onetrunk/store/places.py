"""Places to write to, checked before any work: nothing is mixed with files of the user's."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from onetrunk.errors import BadInput, shorten

MARK = ".onetrunk"  # a file in folders of results that nothing else identifies
# what any folder may hold: locks, unfinished files of a killed writer, and files of desktops
IGNORED = re.compile(
    r"\.lock|\..*\.(part|old)|\.recipe\.toml\..*|\.DS_Store|desktop\.ini|Thumbs\.db"
)
SHOWN = 3  # names in an error


def check_folder(
    folder: Path, what: str, own: Callable[[Path], bool], *, touch: bool = True
) -> None:
    """Raise BadInput unless results can be written to a folder without mixing them with others.

    Args:
        folder: The folder; it may be missing or empty.
        what: What else it may be, for example "a run".
        own: Whether something in the folder belongs to that.
        touch: Whether something may be created, and removed again, to find out.
    """
    check_writable(folder, touch=touch)
    if not folder.exists() or (folder / MARK).is_file():
        return
    others = sorted(
        path.name for path in folder.iterdir() if not (IGNORED.fullmatch(path.name) or own(path))
    )
    if others:
        raise BadInput(
            f"expected an empty folder, a new one, or {what}, to write to",
            got=f"{folder} with {shorten(others, SHOWN)}",
            try_="another name, or an empty folder",
        )


def check_file(path: Path, option: str = "--out") -> None:
    """Raise BadInput unless a file can be written; folders that are missing are created later."""
    if path.is_dir():
        raise BadInput(
            "expected a file to write", got=f"{path}, a folder", try_=f"{option} with another name"
        )
    check_writable(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise _unwritable(path, "no permission")


def check_writable(folder: Path, *, touch: bool = True) -> None:
    """Raise BadInput unless files can be written to a folder, which is created if missing.

    Args:
        touch: Whether something may be created, and removed again, to find out.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise _unwritable(folder, f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"no permission to write to {there}")
    if not touch:
        return
    try:  # permissions do not tell of read-only and of special file systems
        with suppress(FileNotFoundError):
            folder.lstat()  # fails if the name is too long
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".part", dir=there))
    except OSError as error:
        raise _unwritable(
            folder, f"nothing can be created in {there}: {error.strerror or error}"
        ) from None


def _unwritable(path: Path, reason: str) -> BadInput:
    return BadInput(f"cannot write {path}", got=reason, try_="another name or folder")


def mark(folder: Path, what: str) -> None:
    """Mark a folder as one that onetrunk has written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(f"onetrunk: {what}\n")


def relative_to(path: Path, root: Path) -> str:
    """Return a path as seen from a folder, with slashes; an absolute one on another drive."""
    try:
        relative = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    except ValueError:
        return os.path.realpath(path)
    return relative.replace(os.sep, "/")
