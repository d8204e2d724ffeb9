"""The folders of the cache: what they hold, when they were last used, and how they are removed.

A folder is in use while a process holds a lock on one of its files `use-PID-….lock`. The lock is
released when the process ends, however it ends.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from onetrunk.errors import Failed, printable
from onetrunk.progress import say

FOLDER = re.compile(r"[0-9a-f]{24}-\d+x\d+(-records)?")  # names of the cache's folders
ABOUT, DONE, USED = "about.json", "done.json", "used"
IN_USE = "use-*.lock"
MARKS = 20  # that are tried


@dataclass(frozen=True)
class Origin:
    """Where the images of a folder of the cache come from.

    Attributes:
        source: As the user wrote it, for example `folder:photos`.
        path: The file or folder that it names, if there is one.
    """

    source: str
    path: str | None = None

    @classmethod
    def of(cls, source: str, base: Path) -> Origin:
        """Return the origin of a source whose relative paths start from `base`."""
        rest = source.partition(":")[2].partition("?")[0]
        with suppress(OSError, ValueError, RuntimeError):  # not the name of a file
            path = Path(base, Path(rest).expanduser())
            if rest and path.exists():
                return cls(source, str(path.resolve()))
        return cls(source)

    def matches(self, other: Origin) -> bool:
        """Return whether both are the same source: by their paths where both have one."""
        if self.path is None or other.path is None:
            return self.source == other.source
        prefix, _, _ = self.source.partition(":")
        return self.path == other.path and other.source.startswith(f"{prefix}:")

    def __str__(self) -> str:
        prefix, _, _ = self.source.partition(":")
        return self.source if self.path is None else f"{prefix}:{self.path}"


@dataclass(frozen=True)
class Entry:
    """A folder of the cache.

    Attributes:
        origin: None if it is not known.
        images: The number of its images; None if it is not known.
        bytes: Its size on the disk.
        used: When it was last used, in seconds since 1970.
        finished: Whether all of its images are decoded.
    """

    folder: Path
    origin: Origin | None
    images: int | None
    bytes: int
    used: float
    finished: bool

    @property
    def size(self) -> str:
        """The size of its images, HEIGHTxWIDTH."""
        return self.folder.name.split("-")[1]

    def to_json(self) -> dict[str, Any]:
        """Return a plain document."""
        return {
            "folder": str(self.folder),
            "source": None if self.origin is None else str(self.origin),
            "images": self.images,
            "size": self.size,
            "bytes": self.bytes,
            "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used)),
            "finished": self.finished,
            "in_use": is_in_use(self.folder),
        }


def entries(home: Path) -> list[Entry]:
    """Return the folders of a cache, the one used last first; other folders are ignored."""
    try:
        folders = [path for path in home.iterdir() if FOLDER.fullmatch(path.name)]
    except OSError:
        return []
    found = [entry for folder in folders if (entry := _read(folder)) is not None]
    return sorted(found, key=lambda entry: (-entry.used, entry.folder.name))


def describe(folder: Path, origin: Origin, about: Mapping[str, Any]) -> None:
    """Write what a folder of the cache holds, for lists."""
    document = {"source": origin.source, "path": origin.path, **about}
    (folder / ABOUT).write_text(json.dumps(document) + "\n")


def touch(folder: Path) -> None:
    """Record that a folder is used now."""
    with suppress(OSError):  # of another user
        (folder / USED).touch()


def bytes_in(folder: Path) -> int:
    """Return the bytes of the files in a folder; 0 if it is being removed."""
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                total += path.stat().st_size
    return total


class InUse:
    """Marks a folder of the cache as used by this process, until this object is deleted."""

    def __init__(self, folder: Path) -> None:
        weakref.finalize(self, _release, _hold_mark(folder), os.getpid())


def _hold_mark(folder: Path) -> FileLock:
    """Return the lock on a new mark in a folder.

    Another process that looks for marks may lock and remove one before it is locked here.
    """
    for _ in range(MARKS):
        path = folder / f"use-{os.getpid()}-{secrets.token_hex(4)}.lock"
        lock = FileLock(path, timeout=0, thread_local=False)  # may be deleted by another thread
        with suppress(Timeout):
            lock.acquire()
            if path.exists():
                return lock
            lock.release()
    raise OSError(f"no file can be locked in {folder}")


def _release(lock: FileLock, process: int) -> None:
    if os.getpid() == process:  # not in a fork, whose parent still uses the folder
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)


def is_in_use(folder: Path) -> bool:
    """Return whether a process uses a folder; the marks of processes that ended are removed."""
    for path in folder.glob(IN_USE):
        lock = FileLock(path, timeout=0)
        try:
            with lock:
                path.unlink(missing_ok=True)
        except (Timeout, PermissionError):  # a mark of another user may be one in use
            return True
        except OSError:  # removed meanwhile
            continue
    return False


def remove(chosen: Iterable[Entry]) -> list[Entry]:
    """Remove folders of the cache; return those that were removed.

    A folder that a process decodes into or reads from is kept, with a message.
    """
    removed = []
    for entry in chosen:
        try:
            gone = _remove(entry.folder)
        except OSError as error:
            raise Failed(
                f"{entry.folder} cannot be removed",
                got=error.strerror or str(error),
                try_="remove it by hand",
            ) from None
        if gone:
            removed.append(entry)
        else:
            folder = printable(str(entry.folder))
            say(f"{folder} is kept: a process uses it; try: purge again later")
    return removed


def evict(home: Path, needed: int, keep: Path) -> int:
    """Remove folders until `needed` bytes are freed, the one unused for longest first.

    Args:
        keep: A folder that is not removed.

    Returns:
        The bytes that were freed.
    """
    freed = 0
    for entry in reversed(evictable(entries(home), keep)):
        if freed >= needed:
            break
        with suppress(OSError):  # of another user
            if _remove(entry.folder):
                freed += entry.bytes
                say(
                    f"removed {entry.bytes / 1e9:.2f} GB of decoded images of "
                    f"{printable(str(entry.origin or entry.folder.name))} from the cache, to make "
                    "room"
                )
    return freed


def evictable(found: Sequence[Entry], keep: Path) -> list[Entry]:
    """Return the folders that no process uses, without `keep`."""
    return [entry for entry in found if entry.folder != keep and not is_in_use(entry.folder)]


def _remove(folder: Path) -> bool:
    """Remove a folder unless a process uses it; return whether it is gone."""
    lock = FileLock(lock_path(folder), timeout=0)
    try:
        with lock:
            if is_in_use(folder):
                return False
            if folder.is_dir():
                shutil.rmtree(folder)
            with suppress(OSError):  # on Windows an open file cannot be removed
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def lock_path(folder: Path) -> Path:
    """Return the lock that a process holds while it decodes into a folder, or removes it."""
    return folder.with_name(f"{folder.name}.lock")


def _read(folder: Path) -> Entry | None:
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        about = None
    about = about if isinstance(about, dict) else {}
    source, path, images = about.get("source"), about.get("path"), about.get("images")
    origin = None
    if isinstance(source, str):
        origin = Origin(source, path if isinstance(path, str) else None)
    used = folder / USED
    try:
        last = (used if used.exists() else folder).stat().st_mtime
    except OSError:  # removed meanwhile
        return None
    return Entry(
        folder,
        origin,
        images if isinstance(images, int) else None,
        bytes_in(folder),
        last,
        (folder / DONE).exists(),
    )
