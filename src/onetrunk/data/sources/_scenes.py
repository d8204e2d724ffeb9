"""Scenes as arrays, the usual format of dense benchmarks: ROOT/SPLIT/KIND/N.npy.

SPLIT is train or val. KIND is image, (H, W, 3) floats in 0…1 or 8 bits, or the folder of a kind of
target. N is a number. There is no test split, and papers evaluate (and often select models) on val.
Therefore val is used as the test split, and a new val is taken from train by hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.labels import check_kinds
from onetrunk.data.files.paths import Root, stamp
from onetrunk.data.files.targets import as_bad_image, read_npy, read_target
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput, shorten

NUMBERED = re.compile(r"(\d+)\.npy")
SLACK = 1e-3  # how far resizing may have moved a pixel out of 0…1


class Scenes:
    """One archive: numbered images, and targets with the same numbers.

    Args:
        places: The default folder of each kind's targets.
    """

    def __init__(
        self, name: str, folder: Path, options: SourceOptions, places: Mapping[Kind, str]
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self.mark = ""  # part of every stamp: settings that change what is read
        self._root = Root(folder)
        self._numbers = {
            split: _numbers(folder / split / "image") for split in ("train", "val", "test")
        }
        if not self._numbers["train"] or not self._numbers["val"]:
            raise BadInput(
                f"{name}: expected files train/image/N.npy and val/image/N.npy",
                available=sorted(f"{p.parent.name}/{p.name}" for p in folder.glob("*/*")),
                try_="the folder that holds train/ and val/",
            )
        self._splits = {"train": "train", "val": "val", "test": "test"}
        if not self._numbers["test"]:
            self._splits["val"] = "test"
            self.notes.append(
                "its val images are used as the test split, as it has none; val is taken from train"
            )
        self.tasks = self._read_tasks(options.tasks, places)
        self.size = self._size()
        self._note_gaps()

    def items(self) -> Iterator[Item]:
        """Yield every image of every split, in the order of their numbers."""
        for split, numbers in self._numbers.items():
            for number in numbers:
                key = f"{split}/image/{number}.npy"
                stamps = [stamp(self._root.folder / key)]
                for task in self.tasks:
                    stamps.append(stamp(self._root.folder / self._file(split, task, number)))
                mark = "+".join([*stamps, self.mark])
                yield Item(key, f"{split}/{number}", mark, self._splits[split])

    def image(self, where: str) -> NDArray[Any]:
        """Return the array of an image."""
        split, _, number = where.partition("/")
        with as_bad_image("image"):
            pixels = read_npy(self._root.open(f"{split}/image/{number}.npy"), "fu")
            if pixels.ndim != 3 or pixels.shape[2] != 3:
                raise BadImage(f"expected (H, W, 3), got {pixels.shape}")
            if pixels.dtype.kind == "f":
                over = float(max(-pixels.min(initial=0), pixels.max(initial=0) - 1))
                if not over <= SLACK:  # true for NaN as well
                    raise BadImage(
                        f"expected floats in 0…1, got {pixels.min():.3g} to {pixels.max():.3g}"
                    )
                pixels = pixels.clip(0, 1)
            return np.asarray(pixels)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the array with the same number in the task's folder."""
        split, _, number = where.partition("/")
        dense = next(t for t in self.tasks if t.name == task)
        path = self._file(split, dense, number)
        if stamp(self._root.folder / path) == "missing":
            return None
        return self.read(dense, self._root.open(path))

    def read(self, task: Task, path: Path) -> NDArray[Any]:
        """Read the file of a target."""
        return read_target(task, path)

    def _file(self, split: str, task: Task, number: int | str) -> str:
        return f"{split}/{task.column}/{number}.npy"

    def _read_tasks(
        self, requested: tuple[Task, ...] | None, places: Mapping[Kind, str]
    ) -> tuple[Task, ...]:
        """Return the tasks with the folder of their targets as their column."""
        if requested is None:
            requested = tuple(
                Task(kind, kind) for kind in places if self._has_targets(places[kind])
            )
            if not requested:
                raise BadInput(
                    f"{self.name}: no targets beside its images",
                    available=sorted(p.name for p in self._root.folder.glob("train/*")),
                    try_=f"add {' or '.join(places.values())} beside image/",
                )
        check_kinds(self.name, requested, places, "a table: or folder: source for other tasks")
        tasks = []
        for task in requested:
            folder = task.column or places[task.kind]
            if not self._has_targets(folder):
                beside = {p.parent.name for p in self._root.folder.glob("*/*/*.npy")}
                raise BadInput(
                    f"{self.name}: task {task.name}: no such folder of targets",
                    got=folder,
                    available=sorted(beside - {"image"}),
                    try_=f"leave {task.name} out of the tasks, or name its folder as the column",
                )
            tasks.append(Task(task.name, task.kind, task.classes, 1, folder, task.unit))
        return tuple(tasks)

    def _has_targets(self, folder: str) -> bool:
        return any(_numbers(self._root.folder / split / folder) for split in ("train", "val"))

    def _size(self) -> tuple[int, int]:
        """Return height and width of the first image that can be read."""
        for split, numbers in self._numbers.items():
            for number in numbers:
                try:
                    height, width, _ = self.image(f"{split}/{number}").shape
                    return height, width
                except BadImage:  # reported when it is decoded
                    continue
        raise BadInput(
            f"{self.name}: none of its images can be read", try_=f"onetrunk data {self.name}"
        )

    def _note_gaps(self) -> None:
        """Note the missing numbers of images and of targets."""
        for split, numbers in self._numbers.items():
            if not numbers:
                continue
            gaps = sorted(set(range(numbers[-1] + 1)) - set(numbers))
            if gaps:
                self.notes.append(f"{split}: no image {shorten(gaps, 5)} of 0…{numbers[-1]}")
            for task in self.tasks:
                targets = set(_numbers(self._root.folder / split / str(task.column)))
                lacking = sorted(set(numbers) - targets)
                if lacking:
                    self.notes.append(
                        f"{split}: {len(lacking)} of {len(numbers)} images have no {task.column}, "
                        f"so they are not labelled: {shorten(lacking, 5)}"
                    )
                if alone := sorted(targets - set(numbers)):
                    self.notes.append(f"{split}: {task.column} without image: {shorten(alone, 5)}")


def parse_query(
    rest: str, known: Mapping[str, Sequence[str]], prefix: str
) -> tuple[str, dict[str, str]]:
    """Split `PATH?key=value&key=value` into the path and the settings.

    Args:
        known: The keys with the values that each may have.
    """
    path, mark, query = rest.rpartition("?")
    if not mark:
        return rest, {}
    settings: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key not in known:
            raise BadInput(f"{prefix}:{rest}: unknown key", got=key, available=known)
        if key in settings:
            raise BadInput(f"{prefix}:{rest}: {key} occurs twice", got=query)
        if value not in known[key]:
            raise BadInput(
                f"{prefix}:{rest}: unknown value of {key}", got=value, available=known[key]
            )
        settings[key] = value
    return path, settings


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (NUMBERED.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)
