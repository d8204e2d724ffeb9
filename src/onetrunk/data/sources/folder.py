"""`folder:ROOT`: class folders, or `images/` with dense targets beside it.

Classes: ROOT/CLASS/… or ROOT/SPLIT/CLASS/…, any depth below a class. SPLIT is train, val, valid,
validation or test. Dense: ROOT/images/…, ROOT/images/SPLIT/… or ROOT/SPLIT/images/…, and beside
images/ the folders segment/, depth/ and normals/ with the same paths but for the ending (see
`dense` for what the files hold). segment/classes.txt names the classes, one a line. A task's
`column` names another folder than its kind. A missing target file means "not labelled".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.files.paths import (
    Root,
    only,
    place,
    some,
    split_of,
    stamp,
)
from onetrunk.data.files.targets import DENSE_KINDS, ENDINGS, largest_class, read_target
from onetrunk.data.files.walk import Walk, counted
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, Label, SourceOptions
from onetrunk.data.task import NO_PIXEL, Kind, Task
from onetrunk.errors import BadInput


class Folder:
    """A folder of images on disk."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        self.name = f"folder:{rest}"
        self.notes: list[str] = []
        folder = place(asked.base, rest, "folder")
        if not folder.is_dir():
            raise BadInput(f"{self.name}: expected a folder, and this is a file", try_="table:FILE")
        self._root = Root(folder)
        self._walk = Walk(self._root)
        wanted = {self._place_of(task) for task in asked.tasks or () if task.dense}
        self._parts, self._dense = self._layout(wanted or set(DENSE_KINDS), bool(wanted))
        if "" not in (folder for _, folder in self._parts) and self._walk.files(""):
            loose = self._walk.files("")
            self._walk.wrong.append(f"images outside any class folder: {counted(loose)}")
        self._walk.stop_if_wrong(self.name)
        self.tasks = self._read_tasks(asked.tasks)

    def items(self) -> Iterator[Item]:
        """Every image file, in the order of its path."""
        walk = Walk(self._root)
        walk.said = list(self._walk.said)
        met = dict.fromkeys(self._classes, 0)
        matched = {task.name: 0 for task in self.tasks if task.dense}
        loose: list[str] = []  # images outside any class folder
        listed = 0
        for split, folder in self._parts:
            for key in walk.images(folder):
                inner = key[len(folder) + 1 :] if folder else key
                first, slash, _ = inner.partition("/")
                if slash:
                    met[first] = met.get(first, 0) + 1
                elif not self._dense:
                    loose.append(key)
                    continue
                labels: dict[str, Label] = {}
                stamps = [stamp(self._root.folder / key)]
                for task in self.tasks:
                    if not task.dense:
                        labels[task.name] = first if slash else None
                        continue
                    found = self._targets(key, task)
                    matched[task.name] += bool(found)
                    stamps += [stamp(path) for path in found] or ["none"]
                listed += 1
                yield Item(key, key, "+".join(stamps), split, labels=labels)
        empty = [name for name, n in met.items() if n == 0]
        if loose:
            walk.wrong.append(f"images outside any class folder: {counted(loose)}")
        if empty:
            walk.wrong.append(f"classes without images: {counted(empty)}")
        if listed:
            walk.wrong += [
                f"task {task}: no file in {self._place_of(self._task(task))}/ matches an image"
                for task, n in matched.items()
                if n == 0
            ]
        elif not (loose or empty):
            walk.wrong.append("no images")
        walk.stop_if_wrong(self.name)
        self.notes = walk.notes()

    def image(self, where: str) -> Path:
        """The file's path."""
        return self._root.open(where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """The dense target that lies beside `images/`."""
        asked = self._task(task)
        found = self._targets(where, asked)
        if len(found) > 1:
            raise BadImage(f"{task}: two targets, {some(path.name for path in found)}")
        return read_target(asked, found[0]) if found else None

    def _task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    @staticmethod
    def _place_of(task: Task) -> str:
        return task.column or task.kind

    def _targets(self, key: str, task: Task) -> list[Path]:
        """The target's files: one, none, or (wrongly) one of each ending."""
        beside, _, inner = f"/{key}".partition("/images/")
        stem = f"{beside}/{self._place_of(task)}/{os.path.splitext(inner)[0]}".lstrip("/")
        found = [self._root.find(stem + ending) for ending in ENDINGS.get(task.kind, ())]
        return [path for path in found if path is not None and path.is_file()]

    def _layout(self, dense: set[str], sure: bool) -> tuple[list[tuple[str | None, str]], bool]:
        """The folders that hold class folders (or images), with their split; are targets beside?"""
        top = self._walk.folders("")
        images = "images" in top and (sure or dense & set(top) or top == ["images"])
        if images:
            inner = self._walk.folders("images")
            if others := set(top) - {"images", *dense}:
                self._walk.said.append(f"folders beside images/ passed over: {counted([*others])}")
            if inner and all(map(split_of, inner)):
                return [(split_of(name), f"images/{name}") for name in inner], True
            return [(None, "images")], True
        splits = [name for name in top if split_of(name)]
        if splits and len(splits) == len(top):
            with_images = [name for name in top if "images" in self._walk.folders(name)]
            beside = {folder for name in with_images for folder in self._walk.folders(name)}
            if with_images and (sure or beside & dense or beside == {"images"}):
                return [(split_of(name), f"{name}/images") for name in with_images], True
            return [(split_of(name), name) for name in top], False
        if any(self._walk.folders(name) and not self._walk.files(name) for name in splits):
            rest = [name for name in top if name not in splits]
            raise BadInput(
                f"{self.name}: folders of splits and others side by side",
                got=some(top),
                try_=f"move {some(rest, 3)} into a split or away",
            )
        return [(None, "")], False

    def _read_tasks(self, asked: tuple[Task, ...] | None) -> tuple[Task, ...]:
        if asked is None and self._dense:
            beside = [os.path.dirname(folder.partition("images")[0]) for _, folder in self._parts]
            there = {name for folder in beside for name in self._walk.folders(folder)}
            asked = tuple(Task(kind, kind) for kind in DENSE_KINDS if kind in there)
        asked = asked or (Task("classify", "classify"),)
        kinds: tuple[Kind, ...] = ("classify", "embed", *(DENSE_KINDS if self._dense else ()))
        only(self.name, asked, kinds, "table: has columns for the rest; targets lie beside images/")
        plain = any(not task.dense for task in asked)
        names = {c for _, f in self._parts for c in self._walk.folders(f)} if plain else set()
        self._classes = sorted(names)
        tasks = []
        for task in asked:
            if not task.classes and task.kind == "segment":
                task = task.with_classes(self._segment_classes(task))
            elif not task.classes and not task.dense:
                task = task.with_classes(self._classes)
            tasks.append(task)
        return tuple(tasks)

    def _segment_classes(self, task: Task) -> list[str]:
        """From classes.txt, else "0" to the largest index that a map holds."""
        lists: dict[str, list[str]] = {}
        for _, folder in self._parts:
            name = f"{folder.partition('images')[0]}{self._place_of(task)}/classes.txt"
            path = self._root.find(name)
            if path is not None and path.is_file():
                try:
                    lists[name] = [line.strip() for line in path.read_text("utf-8-sig").split("\n")]
                except (OSError, UnicodeDecodeError) as error:
                    raise BadInput(f"{self.name}: cannot read {name}", got=str(error)) from None
                lists[name] = [line for line in lists[name] if line]
        if len({tuple(names) for names in lists.values()}) > 1:
            raise BadInput(f"{self.name}: these lists of classes differ", got=some(lists))
        if lists:
            return next(iter(lists.values()))
        top, read = 0, 0
        for _, folder in self._parts:
            for key in self._walk.images(folder):
                for path in self._targets(key, task):
                    try:
                        top = max(top, largest_class(path))
                        read += 1
                    except BadImage:  # found bad, and said, when it is decoded
                        continue
        self._walk.said.append(
            f"{read} maps read to find the largest class index of task {task.name}, {top} "
            f"({NO_PIXEL} is not labelled); {self._place_of(task)}/classes.txt would name them"
        )
        return [str(index) for index in range(top + 1)]


SOURCE = Folder
