"""`torchvision:NAME[:ROOT]`: any classification dataset class of torchvision, by name.

ROOT is `data` where it is not said. What lies there is used; what does not is downloaded where the
class knows how. Splits are those that the class takes, by `train=` or `split=`.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.files.paths import distinct, only, regular, some, stamp
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed

SPLITS = {
    "train": ("train", "trainval"),  # the first that the class accepts
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
REFUSED = {"LSUN": "its cache is a pickle"}
LABELS = ("targets", "labels", "_labels", "y")  # where the classes keep the labels of all images
PATHS = ("samples", "_samples", "_image_files", "_images", "imgs")  # and the paths, where they do


class TorchVision:
    """A dataset class of torchvision, all its splits."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        self.name = f"torchvision:{rest}"
        self.notes: list[str] = []
        name, _, root = rest.partition(":")
        self._class = self._find(name)
        self._root = Path(asked.base, Path(root or "data").expanduser())
        self._files = ""  # a checksum over what lies under the root
        self._parts = self._open()
        self._labels = {split: _labels(part) for split, part in self._parts.items()}
        self._paths = {split: _paths(part) for split, part in self._parts.items()}
        slow = [str(split) for split, labels in self._labels.items() if labels is None]
        if slow:
            self.notes.append(f"{some(slow)}: images are decoded to list their labels")
        self._classes = {split: self._names(split) for split in self._parts}
        names = list(dict.fromkeys(name for names in self._classes.values() for name in names))
        asked_tasks = asked.tasks or (Task("classify", "classify"),)
        only(self.name, asked_tasks, ("classify", "embed"), "folder: or table: for other tasks")
        self.tasks = tuple(t if t.classes else t.with_classes(names) for t in asked_tasks)

    def items(self) -> Iterator[Item]:
        """Every image with its class, split by split."""
        for split, part in self._parts.items():
            names, paths = self._classes[split], self._paths[split]
            listed = []
            for index, label in enumerate(self._all_labels(split)):
                where = f"{split or 'all'}:{index}"
                if paths is None:
                    key, seen = where.replace(":", "/"), self._stamp(part, index)
                else:
                    key, seen = f"{split or 'all'}/{self._key(paths[index])}", stamp(paths[index])
                if label >= len(names):
                    raise BadInput(f"{self.name}: {key}: a label outside the classes", got=label)
                listed.append((key, where, seen, names[label] if label >= 0 else None))
            for key, where, seen, name in sorted(listed) if paths else listed:
                yield Item(key, where, seen, split, labels={t.name: name for t in self.tasks})

    def image(self, where: str) -> Path | Image.Image | NDArray[Any]:
        """The file where there is one, else what the class makes of it."""
        name, _, index = where.partition(":")
        split = None if name == "all" else name
        paths = self._paths[split]
        if paths is not None:
            return regular(paths[int(index)])
        try:
            picture = self._parts[split][int(index)][0]
        except Exception as error:  # decoders raise whatever a broken file leads them to
            raise BadImage(str(error).split("\n")[0][:120] or type(error).__name__) from None
        if not isinstance(picture, Image.Image):
            raise BadImage(f"expected a picture, came {type(picture).__name__}")
        return picture

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """It has none."""
        return None

    def _find(self, name: str) -> Any:
        from torchvision import datasets

        known = {n.lower(): n for n in datasets.__all__ if "root" in _arguments(datasets, n)}
        found = known.get(name.lower())
        if found is None:
            raise BadInput(
                f"{self.name}: no such dataset", got=name, available=sorted(known.values())
            )
        if found in REFUSED:
            raise BadInput(
                f"{self.name}: refused, {REFUSED[found]}", try_="save it as class folders"
            )
        return getattr(datasets, found)

    def _open(self) -> dict[str | None, Any]:
        """One dataset a split; the key is None where the class has no splits."""
        arguments = _arguments_of(self._class)
        if "train" in arguments:
            return {"train": self._make(train=True), "test": self._make(train=False)}
        if "split" not in arguments:
            return {None: self._make()}
        parts: dict[str | None, Any] = {}
        for split, spellings in SPLITS.items():
            for spelling in spellings:
                try:
                    parts[split] = self._make(split=spelling)
                    break
                except _NoSplit:
                    continue
        if not parts:
            raise BadInput(f"{self.name}: none of its splits is train, val or test")
        return parts

    def _make(self, **split: Any) -> Any:
        """Local first; then by download where the class can."""
        tries: list[dict[str, Any]] = [split]
        if "download" in _arguments_of(self._class):
            tries.append({"download": True, **split})
        got = ""
        for arguments in tries:
            try:
                return self._class(str(self._root), **arguments)
            except TypeError as error:
                raise BadInput(f"{self.name}: needs arguments of its own", got=str(error)) from None
            except Exception as error:  # not there, damaged, no network: as the class puts it
                got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                if isinstance(error, ValueError) and "argument split" in got:
                    raise _NoSplit from None
        raise Failed(
            f"{self.name}: not there (or damaged) and not downloaded; got: {got}; try: put its "
            f"files where torchvision.datasets.{self._class.__name__} looks, or go online"
        )

    def _all_labels(self, split: str | None) -> Sequence[int]:
        labels = self._labels[split]
        if labels is None:
            part = self._parts[split]
            labels = [_one_label(part[index][1], self.name) for index in range(len(part))]
            self._labels[split] = labels
        return labels

    def _names(self, split: str | None) -> list[str]:
        """The classes of a split, at the place of their number."""
        part = self._parts[split]
        for attribute in ("classes", "categories", "class_to_idx"):
            names = getattr(part, attribute, None)
            if isinstance(names, dict):
                names = sorted(names, key=names.__getitem__)
            if names is not None and len(names) > 0 and isinstance(names[0], (str, tuple)):
                plain = [n if isinstance(n, str) else ", ".join(n) for n in names]
                return distinct(plain, range(len(plain)))
        top = max((max(self._all_labels(s), default=-1) for s in self._parts), default=-1)
        return [str(index) for index in range(top + 1)]

    def _key(self, path: Path) -> str:
        root = self._root.resolve()
        path = path.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    def _stamp(self, part: Any, index: int) -> str:
        """The pixels' own checksum where the class holds them, else that of all files' stamps."""
        data: Any = vars(part).get("data", ())
        if len(data) == len(part):
            pixels = np.ascontiguousarray(np.asarray(data[index]))
            if pixels.dtype.kind in "uif":
                return f"{pixels.nbytes}-{zlib.crc32(pixels.tobytes()):08x}"
        if not self._files:
            seen = sorted(f"{path}:{stamp(path)}" for path in self._root.rglob("*"))
            self._files = f"{zlib.crc32(' '.join(seen).encode('utf-8', 'replace')):08x}"
        return f"{self._files}-{index}"


SOURCE = TorchVision


class _NoSplit(Exception):
    """The class has no split of this name."""


def _arguments_of(made: Any) -> set[str]:
    """Names of the arguments of a class and, where it passes them on, of those above it."""
    found: set[str] = set()
    for one in inspect.getmro(made):
        if "__init__" in vars(one):
            parameters = inspect.signature(one).parameters.values()
            found |= {p.name for p in parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def _arguments(module: Any, name: str) -> set[str]:
    made = getattr(module, name)
    return _arguments_of(made) if inspect.isclass(made) else set()


def _labels(part: Any) -> list[int] | None:
    """The labels of all images where the class keeps them, found without decoding one."""
    for attribute in LABELS:
        values = getattr(part, attribute, None)
        if values is not None and hasattr(values, "__len__") and len(values) == len(part):
            return [_one_label(value, type(part).__name__) for value in values]
    for attribute in PATHS:
        pairs = getattr(part, attribute, None)
        if (
            pairs is not None
            and len(pairs) == len(part) > 0
            and isinstance(pairs[0], (tuple, list))
        ):
            return [_one_label(pair[1], type(part).__name__) for pair in pairs]
    return None


def _one_label(value: Any, name: str) -> int:
    try:
        return int(np.asarray(value).item())
    except (TypeError, ValueError):
        raise BadInput(
            f"torchvision:{name.removeprefix('torchvision:')}: not a dataset of one class an image",
            got=type(value).__name__,
        ) from None


def _paths(part: Any) -> list[Path] | None:
    for attribute in PATHS:
        values = getattr(part, attribute, None)
        if values is None or len(values) != len(part) or len(part) == 0:
            continue
        paths = [v[0] if isinstance(v, (tuple, list)) else v for v in values]
        if all(isinstance(path, (str, Path)) and Path(path).is_file() for path in paths[:1]):
            return [Path(path) for path in paths]
    return None
