"""`torchvision:NAME[:ROOT]`: any classification dataset class of torchvision, by name.

ROOT is `data` by default. Existing files are used; missing ones are downloaded if the class can do
this. The splits are those of the class, by its argument `train=` or `split=`.
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

from onetrunk.data.files.labels import check_kinds, unique_names
from onetrunk.data.files.paths import expanded, regular, stamp
from onetrunk.data.pixels import BadImage, reason_of
from onetrunk.data.sources import Item, NoTargets, SourceOptions
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, shorten

SPLITS = {
    "train": ("train", "trainval"),  # the first that the class accepts
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
REFUSED = {"LSUN": "its cache is a pickle"}
LABELS = ("targets", "labels", "_labels", "y")  # attributes with the labels of all images
PATHS = ("samples", "_samples", "_image_files", "_images", "imgs")  # and with their paths


class TorchVision(NoTargets):
    """A dataset class of torchvision with all its splits."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"torchvision:{rest}"
        self.notes: list[str] = []
        name, _, root = rest.partition(":")
        self._class = self._find(name)
        self._root = Path(options.base, expanded(root or "data"))
        self._files = ""  # a checksum over the files under the root
        self._parts = self._open()
        self._labels = {split: _labels(part) for split, part in self._parts.items()}
        self._paths = {split: _paths(part) for split, part in self._parts.items()}
        slow = [str(split) for split, labels in self._labels.items() if labels is None]
        if slow:
            self.notes.append(f"{shorten(slow)}: images are decoded to list their labels")
        self._classes = {split: self._names(split) for split in self._parts}
        names = list(dict.fromkeys(name for names in self._classes.values() for name in names))
        requested = options.tasks or (Task("classify", "classify"),)
        check_kinds(
            self.name, requested, ("classify", "embed"), "folder: or table: for other tasks"
        )
        self.tasks = tuple(t if t.classes else t.with_classes(names) for t in requested)

    def items(self) -> Iterator[Item]:
        """Yield every image with its class, split by split."""
        for split, part in self._parts.items():
            names, paths = self._classes[split], self._paths[split]
            listed = []
            for index, label in enumerate(self._all_labels(split)):
                where = f"{split or 'all'}:{index}"
                if paths is None:
                    key, mark = where.replace(":", "/"), self._stamp(part, index)
                else:
                    key, mark = f"{split or 'all'}/{self._key(paths[index])}", stamp(paths[index])
                if label >= len(names):
                    raise BadInput(f"{self.name}: {key}: a label outside the classes", got=label)
                listed.append((key, where, mark, names[label] if label >= 0 else None))
            for key, where, mark, name in sorted(listed) if paths else listed:
                yield Item(key, where, mark, split, labels={t.name: name for t in self.tasks})

    def image(self, where: str) -> Path | Image.Image | NDArray[Any]:
        """Return the path of an image, or the class's picture if it has no file."""
        name, _, index = where.partition(":")
        split = None if name == "all" else name
        paths = self._paths[split]
        if paths is not None:
            return regular(paths[int(index)])
        try:
            picture = self._parts[split][int(index)][0]
        except Exception as error:  # decoders may raise any exception
            raise BadImage(reason_of(error)) from None
        if not isinstance(picture, Image.Image):
            raise BadImage(f"expected a picture, got {type(picture).__name__}")
        return picture

    def _find(self, name: str) -> Any:
        from torchvision import datasets

        known = {
            n.lower(): n for n in datasets.__all__ if "root" in _arguments_of(getattr(datasets, n))
        }
        dataset = known.get(name.lower())
        if dataset is None:
            raise BadInput(
                f"{self.name}: no such dataset", got=name, available=sorted(known.values())
            )
        if dataset in REFUSED:
            raise BadInput(
                f"{self.name}: not supported, as {REFUSED[dataset]}",
                try_="save it as class folders",
            )
        return getattr(datasets, dataset)

    def _open(self) -> dict[str | None, Any]:
        """Return a dataset per split; the key is None if the class has no splits."""
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
        """Make a dataset from local files, or else by download if the class supports it."""
        tries: list[dict[str, Any]] = [split]
        if "download" in _arguments_of(self._class):
            tries.append({"download": True, **split})
        got = ""
        for arguments in tries:
            try:
                return self._class(str(self._root), **arguments)
            except TypeError as error:
                raise BadInput(
                    f"{self.name}: the class needs other arguments", got=str(error)
                ) from None
            except Exception as error:  # missing, damaged, no network
                got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                if isinstance(error, ValueError) and "argument split" in got:
                    raise _NoSplit from None
        raise Failed(
            f"{self.name}: its files are missing or damaged, and cannot be downloaded",
            got=got,
            try_=f"put its files where torchvision.datasets.{self._class.__name__} expects them, "
            "or go online",
        )

    def _all_labels(self, split: str | None) -> Sequence[int]:
        labels = self._labels[split]
        if labels is None:
            part = self._parts[split]
            labels = [_one_label(part[index][1], self.name) for index in range(len(part))]
            self._labels[split] = labels
        return labels

    def _names(self, split: str | None) -> list[str]:
        """Return the classes of a split, in the order of their numbers."""
        part = self._parts[split]
        for attribute in ("classes", "categories", "class_to_idx"):
            names = getattr(part, attribute, None)
            if isinstance(names, dict):
                names = sorted(names, key=names.__getitem__)
            if names is not None and len(names) > 0 and isinstance(names[0], (str, tuple)):
                plain = [n if isinstance(n, str) else ", ".join(n) for n in names]
                return unique_names(plain, range(len(plain)))
        top = max((max(self._all_labels(s), default=-1) for s in self._parts), default=-1)
        return [str(index) for index in range(top + 1)]

    def _key(self, path: Path) -> str:
        root = self._root.resolve()
        path = path.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    def _stamp(self, part: Any, index: int) -> str:
        """Return a checksum of the pixels if the class holds them, else of all files' stamps."""
        data: Any = vars(part).get("data", ())
        if len(data) == len(part):
            pixels = np.ascontiguousarray(np.asarray(data[index]))
            if pixels.dtype.kind in "uif":
                return f"{pixels.nbytes}-{zlib.crc32(pixels.tobytes()):08x}"
        if not self._files:
            stamps = sorted(f"{path}:{stamp(path)}" for path in self._root.rglob("*"))
            self._files = f"{zlib.crc32(' '.join(stamps).encode('utf-8', 'replace')):08x}"
        return f"{self._files}-{index}"


SOURCE = TorchVision


class _NoSplit(Exception):
    """The class has no split of this name."""


def _arguments_of(dataset: Any) -> set[str]:
    """Return the names of a class's arguments, including those that it passes on to its bases."""
    names: set[str] = set()
    for base in inspect.getmro(dataset) if inspect.isclass(dataset) else ():
        if "__init__" in vars(base):
            parameters = inspect.signature(base).parameters.values()
            names |= {p.name for p in parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def _labels(part: Any) -> list[int] | None:
    """Return the labels of all images if the class has them without decoding, else None."""
    for attribute in LABELS:
        values = getattr(part, attribute, None)
        if values is not None and hasattr(values, "__len__") and len(values) == len(part):
            return [_one_label(value, type(part).__name__) for value in values]
    for attribute in PATHS:
        pairs = getattr(part, attribute, None)
        if pairs is None or len(pairs) != len(part) or len(part) == 0:
            continue
        if isinstance(pairs[0], (tuple, list)):
            return [_one_label(pair[1], type(part).__name__) for pair in pairs]
    return None


def _one_label(value: Any, name: str) -> int:
    try:
        return int(np.asarray(value).item())
    except (TypeError, ValueError):
        raise BadInput(
            f"torchvision:{name.removeprefix('torchvision:')}: expected one class per image",
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
