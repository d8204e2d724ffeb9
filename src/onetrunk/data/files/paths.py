"""What sources share: names of splits, image endings, paths that stay inside a root, messages."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.data.pixels import BadImage
from onetrunk.data.task import Kind, Task
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
LABEL_COLUMNS = ("label", "class", "category", "target")  # looked for where no task was named


def split_of(name: str) -> str | None:
    """ "train", "val" or "test" for the usual spellings of them."""
    return SPLITS.get(name.strip().lower())


def split_in(name: str) -> str | None:
    """The one split that a file's name speaks of: `instances_val2017`, `shop-train-0001`."""
    found = {split_of(word) for word in re.findall(r"[a-z]+", name.lower())} - {None}
    return found.pop() if len(found) == 1 else None


def some(names: Iterable[object], limit: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def distinct(names: Sequence[str], ids: Sequence[object]) -> list[str]:
    """The names of classes; those that two classes share carry their number."""
    times = Counter(names)
    marked = [f"{n} ({i})" if times[n] > 1 else n for n, i in zip(names, ids, strict=True)]
    return marked if len(set(marked)) == len(marked) else [str(i) for i in ids]


def read_json(text: str | bytes, what: str, **options: Any) -> Any:
    """A JSON document, whatever it holds; one line where it is none."""
    try:
        return json.loads(text, **options)
    except (ValueError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"{what}: not JSON", got=str(error)[:120]) from None


def only(source: str, tasks: Iterable[Task], kinds: Collection[Kind], next: str) -> None:
    """Refuse the tasks of a kind that this source cannot label."""
    for task in tasks:
        if task.kind not in kinds:
            raise BadInput(
                f"{source}: task {task.name} is of a kind that this source has no labels for",
                got=task.kind,
                available=sorted(kinds),
                try_=next,
            )


def place(base: Path, rest: str, prefix: str) -> Path:
    """The file or folder that the user named, links followed; one line where it is not there."""
    if not rest:
        raise BadInput(f"{prefix}: expected a path behind it", try_=f"{prefix}:PATH")
    path = Path(base, Path(rest).expanduser())
    try:
        if path.exists():
            return path.resolve()
        beside = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{prefix}:{rest}: cannot be looked at", got=_reason(error), try_="check the path"
        ) from None
    raise BadInput(
        f"{prefix}:{rest}: no such file or folder",
        got=path.name,
        available=beside,
        try_="check the name; relative paths start at the recipe's folder, else where you are",
    )


def stamp(path: str | os.PathLike[str]) -> str:
    """What changes when a file's content does, without reading it."""
    try:
        seen = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{seen.st_size}-{seen.st_mtime_ns}" if stat.S_ISREG(seen.st_mode) else "special"


def regular(path: Path) -> Path:
    """The path itself where it is a plain file: opening a pipe or a device would never end."""
    if stamp(path) == "special":
        raise BadImage("not a plain file")
    return path


class Root:
    """A folder that no path and no link leads out of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._folder = str(self.folder)
        self._within = os.path.join(self._folder, "")  # ends in a separator
        self._parents: dict[str, bool] = {}  # a folder's path -> does it lie inside?

    def find(self, name: str) -> Path | None:
        """The file of this name (either slash), None where its path or a link leads outside."""
        name = name.replace("\\", "/")
        if "\0" in name or (re.match(r"[A-Za-z]:/", name) and os.name != "nt"):
            return None
        # strings, not paths: this runs once an image, and pathlib would cost more than the decoding
        path = os.path.normpath(os.path.join(self._folder, name))
        if os.path.isabs(name):  # spelled through a link, perhaps
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not path.startswith(self._within):
            return None
        parent = os.path.dirname(path)
        if parent not in self._parents:
            self._parents[parent] = self._holds(parent)
        if not self._parents[parent] or (os.path.islink(path) and not self._holds(path)):
            return None
        return Path(path)

    def key(self, path: Path) -> str:
        """Its name in this folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    def open(self, name: str) -> Path:
        """The plain file of a name that `find` accepted when it was listed."""
        path = self.find(name)
        if path is None:
            raise BadImage("its path or a link leads out of the source's folder")
        return regular(path)

    def _holds(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return real == self.folder or real.is_relative_to(self.folder)


def outside(what: str, got: str) -> BadInput:
    """The refusal of a path that leaves its root."""
    return BadInput(
        f"{what}: the path or a link leads out of the source's folder",
        got=got,
        try_="move the file inside, or move the source up to the folder that holds both",
    )


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
