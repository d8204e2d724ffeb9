"""Paths of sources: image files, paths restricted to a root folder, names of splits."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from onetrunk.data.pixels import BadImage, reason_of
from onetrunk.errors import BadInput

IMAGE_ENDINGS = frozenset(
    f".{ending}"
    for group in ("jpg jpeg jpe jfif png webp bmp gif tif tiff", "ppm pgm pbm pnm jp2 avif")
    for ending in group.split()
)
SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" for the usual spellings of them, else None."""
    return SPLITS.get(name.strip().lower())


def split_in(name: str) -> str | None:
    """Return the only split in a file's name, such as `instances_val2017`, else None."""
    splits = {split_of(word) for word in re.findall(r"[a-z]+", name.lower())} - {None}
    return splits.pop() if len(splits) == 1 else None


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of `~` or `~user`; it must be known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadInput(
            "expected a path, or ~ or the name of a user after it",
            got=str(path),
            try_=f"./{path} for a file whose name starts with ~",
        ) from None


def existing_path(base: Path, rest: str, prefix: str, folders: bool = False) -> Path:
    """Return the file or folder that the user named, with links resolved; it must exist.

    Args:
        folders: Whether a message lists folders only.
    """
    if not rest:
        raise BadInput(f"{prefix}: expected a path after the prefix", try_=f"{prefix}:PATH")
    path = Path(base, expanded(rest))
    try:
        if path.exists():
            return path.resolve()
        beside = sorted(
            p.name
            for p in path.parent.iterdir()
            if not p.name.startswith(".") and (p.is_dir() or not folders)
        )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{prefix}:{rest}: cannot be opened", got=reason_of(error), try_="check the path"
        ) from None
    raise BadInput(
        f"{prefix}:{rest}: no such file or folder",
        got=path.name,
        available=beside,
        try_="check the name; relative paths start at the recipe's folder, else at the current one",
    )


def existing_folder(base: Path, rest: str, prefix: str, try_: str | None = None) -> Path:
    """Return the folder that the user named, with links resolved; it must exist."""
    folder = existing_path(base, rest, prefix, folders=True)
    if not folder.is_dir():
        raise BadInput(f"{prefix}:{rest}: expected a folder, and this is a file", try_=try_)
    return folder


def stamp(path: str | os.PathLike[str]) -> str:
    """Return size and time of a file, which change with its content."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{info.st_size}-{info.st_mtime_ns}" if stat.S_ISREG(info.st_mode) else "special"


def regular(path: Path) -> Path:
    """Return the path of a regular file; raise BadImage for pipes and devices, which may block."""
    if stamp(path) == "special":
        raise BadImage("not a regular file")
    return path


class Root:
    """A folder whose files are found by name; paths and links to the outside are rejected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._folder = str(self.folder)
        self._within = os.path.join(self._folder, "")  # ends in a separator
        self._parents: dict[str, bool] = {}  # the path of a folder -> whether it is inside

    def find(self, name: str) -> Path | None:
        """Return the path of a name (with either slash), or None if it leads outside."""
        name = name.replace("\\", "/")
        if "\0" in name or (re.match(r"[A-Za-z]:/", name) and os.name != "nt"):
            return None
        # text instead of Path: this runs once per image, and pathlib would cost more than decoding
        path = os.path.normpath(os.path.join(self._folder, name))
        if os.path.isabs(name):  # its folder may be given by a link
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not path.startswith(self._within):
            return None
        parent = os.path.dirname(path)
        if parent not in self._parents:
            self._parents[parent] = self._contains(parent)
        if not self._parents[parent] or (os.path.islink(path) and not self._contains(path)):
            return None
        return Path(path)

    def key(self, path: Path) -> str:
        """Return the path relative to the folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    def open(self, name: str) -> Path:
        """Return the regular file of a name that `find` has accepted before."""
        path = self.find(name)
        if path is None:
            raise BadImage("its path or a link leads out of the source's folder")
        return regular(path)

    def _contains(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return real == self.folder or real.is_relative_to(self.folder)


def outside(place: str, got: str) -> BadInput:
    """Return the error for a path that leads out of the source's folder."""
    return BadInput(
        f"{place}: the path or a link leads out of the source's folder",
        got=got,
        try_="move the file inside, or use the folder that holds both as the source",
    )
