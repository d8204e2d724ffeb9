"""Scenes as arrays, the layout in which dense benchmarks are passed around: ROOT/SPLIT/WHAT/N.npy.

SPLIT is train and val; WHAT is image (H, W, 3), floats in 0…1 or 8 bits, and a folder for each kind
of target beside it; N is a number. There is no test split, and papers evaluate (and often choose) on
val: here val is the test split, and val is cut from train by hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.paths import Root, only, place, some, stamp
from onetrunk.data.files.targets import naming, read_npy, read_target
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

NUMBERED = re.compile(r"(\d+)\.npy")
SLACK = 1e-3  # that resizing may have carried a pixel out of 0…1


class Scenes:
    """One archive: numbered images, and targets of the same numbers."""

    def __init__(
        self, name: str, folder: Path, asked: SourceOptions, places: Mapping[Kind, str]
    ) -> None:
        """`places`: the folder of each kind's targets, where the user names no other."""
        self.name = name
        self.notes: list[str] = []
        self.mark = ""  # what beside the files decides what is read: a part of every stamp
        self._root = Root(folder)
        self._numbers = {
            split: _numbers(folder / split / "image") for split in ("train", "val", "test")
        }
        if not self._numbers["train"] or not self._numbers["val"]:
            raise BadInput(
                f"{name}: expected train/image/N.npy and val/image/N.npy in it",
                available=sorted(f"{p.parent.name}/{p.name}" for p in folder.glob("*/*")),
                try_="name the folder that holds train/ and val/",
            )
        self._splits = {"train": "train", "val": "val", "test": "test"}
        if not self._numbers["test"]:
            self._splits["val"] = "test"
            self.notes.append(
                "its val images are the test split, as it has no other; val is cut from its train"
            )
        self.tasks = self._read_tasks(asked.tasks, places)
        self.size = self._size()
        self._look()

    def items(self) -> Iterator[Item]:
        """Every image of every split, in the order of their numbers."""
        for split, numbers in self._numbers.items():
            for number in numbers:
                key = f"{split}/image/{number}.npy"
                stamps = [stamp(self._root.folder / key)]
                for task in self.tasks:
                    stamps.append(stamp(self._root.folder / self._file(split, task, number)))
                mark = "+".join([*stamps, self.mark])
                yield Item(key, f"{split}/{number}", mark, self._splits[split])

    def image(self, where: str) -> NDArray[Any]:
        """The image's array."""
        split, _, number = where.partition("/")
        with naming("image"):
            pixels = read_npy(self._root.open(f"{split}/image/{number}.npy"), "fu")
            if pixels.ndim != 3 or pixels.shape[2] != 3:
                raise BadImage(f"expected (H, W, 3), came {pixels.shape}")
            if pixels.dtype.kind == "f":
                over = float(max(-pixels.min(initial=0), pixels.max(initial=0) - 1))
                if not over <= SLACK:  # NaN, too
                    raise BadImage(
                        f"floats are expected in 0…1, came {pixels.min():.3g} to {pixels.max():.3g}"
                    )
                pixels = pixels.clip(0, 1)
            return np.asarray(pixels)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """The array of the same number in the task's folder."""
        split, _, number = where.partition("/")
        asked = next(t for t in self.tasks if t.name == task)
        path = self._file(split, asked, number)
        if stamp(self._root.folder / path) == "missing":
            return None
        return self.read(asked, self._root.open(path))

    def read(self, task: Task, path: Path) -> NDArray[Any]:
        """One target's file."""
        return read_target(task, path)

    def _file(self, split: str, task: Task, number: int | str) -> str:
        return f"{split}/{task.column}/{number}.npy"

    def _read_tasks(
        self, asked: tuple[Task, ...] | None, places: Mapping[Kind, str]
    ) -> tuple[Task, ...]:
        """Tasks with the folder of their targets as their column."""
        if asked is None:
            asked = tuple(Task(kind, kind) for kind in places if self._holds(places[kind]))
            if not asked:
                raise BadInput(
                    f"{self.name}: no targets beside its images",
                    available=sorted(p.name for p in self._root.folder.glob("train/*")),
                    try_=f"put {' or '.join(places.values())} beside image/",
                )
        only(self.name, asked, places, "a table: or folder: source for other tasks")
        tasks = []
        for task in asked:
            folder = task.column or places[task.kind]
            if not self._holds(folder):
                beside = {p.parent.name for p in self._root.folder.glob("*/*/*.npy")}
                raise BadInput(
                    f"{self.name}: task {task.name}: no such folder of targets",
                    got=folder,
                    available=sorted(beside - {"image"}),
                    try_=f"leave {task.name} out of the tasks, or name its folder as the column",
                )
            tasks.append(Task(task.name, task.kind, task.classes, 1, folder, task.unit))
        return tuple(tasks)

    def _holds(self, folder: str) -> bool:
        return any(_numbers(self._root.folder / split / folder) for split in ("train", "val"))

    def _size(self) -> tuple[int, int]:
        """Height and width of the first image that can be read."""
        for split, numbers in self._numbers.items():
            for number in numbers:
                try:
                    height, width, _ = self.image(f"{split}/{number}").shape
                    return height, width
                except BadImage:  # found bad, and said, when it is decoded
                    continue
        raise BadInput(
            f"{self.name}: none of its images can be read", try_=f"onetrunk data {self.name}"
        )

    def _look(self) -> None:
        """Say which numbers are missing, of images and of targets."""
        for split, numbers in self._numbers.items():
            if not numbers:
                continue
            gaps = sorted(set(range(numbers[-1] + 1)) - set(numbers))
            if gaps:
                self.notes.append(f"{split}: no image {some(gaps, 5)} of 0…{numbers[-1]}")
            for task in self.tasks:
                there = set(_numbers(self._root.folder / split / str(task.column)))
                lacking = sorted(set(numbers) - there)
                if lacking:
                    self.notes.append(
                        f"{split}: {len(lacking)} of {len(numbers)} images have no {task.column}, "
                        f"so are not labelled: {some(lacking, 5)}"
                    )
                if alone := sorted(there - set(numbers)):
                    self.notes.append(f"{split}: {task.column} without image: {some(alone, 5)}")


def options(
    rest: str, known: Mapping[str, Sequence[str]], prefix: str
) -> tuple[str, dict[str, str]]:
    """`PATH?key=value&key=value` as the path and what is said; `known`: the values of each key."""
    path, mark, query = rest.rpartition("?")
    if not mark:
        return rest, {}
    said: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key not in known:
            raise BadInput(f"{prefix}:{rest}: unknown key", got=key, available=known)
        if key in said:
            raise BadInput(f"{prefix}:{rest}: {key} is said twice", got=query)
        if value not in known[key]:
            raise BadInput(f"{prefix}:{rest}: {key} is one of", got=value, available=known[key])
        said[key] = value
    return path, said


def folder_of(asked: SourceOptions, path: str, prefix: str) -> Path:
    """The archive's folder."""
    folder = place(asked.base, path, prefix)
    if not folder.is_dir():
        raise BadInput(f"{prefix}:{path}: expected a folder, and this is a file", try_="unpack it")
    return folder


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    found = (NUMBERED.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)
