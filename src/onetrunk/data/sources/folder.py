"""`folder:ROOT`: class folders, or `images/` with dense targets beside it.

- Classes: ROOT/CLASS/… or ROOT/SPLIT/CLASS/…, with any depth below a class. SPLIT is train, val,
  valid, validation or test.
- Dense targets: ROOT/images/…, ROOT/images/SPLIT/… or ROOT/SPLIT/images/…, and beside images/ the
  folders segment/, depth/ and normals/ with the same paths except for the ending (see
  `onetrunk.data.files.targets` for their content). segment/classes.txt holds the names of the
  classes, one per line. A task's `column` names its folder if that is not the kind. An image
  without a target file is not labelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.files.labels import check_kinds
from onetrunk.data.files.paths import Root, existing_folder, split_of, stamp
from onetrunk.data.files.targets import DENSE_KINDS, ENDINGS, largest_class, read_target
from onetrunk.data.files.walk import LOOSE, NO_IMAGES, Walk, counted
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import Item, Label, SourceOptions
from onetrunk.data.task import NO_PIXEL, Kind, Task
from onetrunk.errors import BadInput, shorten


class Folder:
    """A folder of images on disk."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"folder:{rest}"
        self.notes: list[str] = []
        self._root = Root(existing_folder(options.base, rest, "folder", "table:FILE"))
        self._walk = Walk(self._root)
        folders = {self._folder_of(task) for task in options.tasks or () if task.dense}
        self._parts, self._dense = self._layout(folders or set(DENSE_KINDS), bool(folders))
        if "" not in (folder for _, folder in self._parts) and (
            loose := self._walk.without_results(self._walk.files(""))
        ):
            self._walk.problems.append(f"{LOOSE}: {counted(loose)}")
        self._walk.raise_problems(self.name)
        self.tasks = self._read_tasks(options.tasks)

    def items(self) -> Iterator[Item]:
        """Yield every image file, in the order of their paths."""
        walk = Walk(self._root)
        walk.remarks, walk.results = [*self._walk.remarks], [*self._walk.results]
        matched = {task.name: 0 for task in self.tasks if task.dense}
        loose: list[str] = []  # images outside any class folder
        listed = 0
        for split, folder in self._parts:
            for key in walk.images(folder):
                inner = key[len(folder) + 1 :] if folder else key
                first, slash, _ = inner.partition("/")
                if not slash and not self._dense:
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
        if loose := walk.without_results(loose):
            walk.problems.append(f"{LOOSE}: {counted(loose)}")
        if listed:
            walk.problems += [
                f"task {task}: no file in {self._folder_of(self._task(task))}/ matches an image"
                for task, n in matched.items()
                if n == 0
            ]
        elif not loose:
            walk.problems.append(NO_IMAGES)
        walk.raise_problems(self.name)
        self.notes = walk.notes()

    def image(self, where: str) -> Path:
        """Return the path of an image."""
        return self._root.open(where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the dense target of an image."""
        dense = self._task(task)
        files = self._targets(where, dense)
        if len(files) > 1:
            raise BadImage(f"{task}: two targets, {shorten(path.name for path in files)}")
        return read_target(dense, files[0]) if files else None

    def _task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    @staticmethod
    def _folder_of(task: Task) -> str:
        return task.column or task.kind

    def _targets(self, key: str, task: Task) -> list[Path]:
        """Return the target files of an image: one, none, or several, which is an error."""
        beside, _, inner = f"/{key}".partition("/images/")
        stem = f"{beside}/{self._folder_of(task)}/{os.path.splitext(inner)[0]}".lstrip("/")
        found = [self._root.find(stem + ending) for ending in ENDINGS.get(task.kind, ())]
        return [path for path in found if path is not None and path.is_file()]

    def _layout(
        self, dense: set[str], requested: bool
    ) -> tuple[list[tuple[str | None, str]], bool]:
        """Return the folders to read with their splits, and whether they have dense targets.

        Args:
            dense: The names of folders that may contain targets.
            requested: Whether the user requested dense targets.
        """
        top = self._walk.folders("")
        images = "images" in top and (requested or dense & set(top) or top == ["images"])
        if images:
            inner = self._walk.folders("images")
            if others := set(top) - {"images", *dense}:
                self._walk.remarks.append(f"folders beside images/ ignored: {counted([*others])}")
            if inner and all(map(split_of, inner)):
                return [(split_of(name), f"images/{name}") for name in inner], True
            return [(None, "images")], True
        splits = [name for name in top if split_of(name)]
        if splits and len(splits) == len(top):
            with_images = [name for name in top if "images" in self._walk.folders(name)]
            beside = {folder for name in with_images for folder in self._walk.folders(name)}
            if with_images and (requested or beside & dense or beside == {"images"}):
                return [(split_of(name), f"{name}/images") for name in with_images], True
            return [(split_of(name), name) for name in top], False
        if any(self._walk.folders(name) and not self._walk.files(name) for name in splits):
            rest = [name for name in top if name not in splits]
            raise BadInput(
                f"{self.name}: expected only folders of splits, or none",
                got=shorten(top),
                try_=f"move {shorten(rest, 3)} into a split, or out of the folder",
            )
        return [(None, "")], False

    def _read_tasks(self, requested: tuple[Task, ...] | None) -> tuple[Task, ...]:
        if requested is None and self._dense:
            beside = [os.path.dirname(folder.partition("images")[0]) for _, folder in self._parts]
            available = {name for folder in beside for name in self._walk.folders(folder)}
            requested = tuple(Task(kind, kind) for kind in DENSE_KINDS if kind in available)
        requested = requested or (Task("classify", "classify"),)
        kinds: tuple[Kind, ...] = ("classify", "embed", *(DENSE_KINDS if self._dense else ()))
        try_ = "table: for other labels, images/ for dense targets beside it"
        check_kinds(self.name, requested, kinds, try_)
        plain = any(not task.dense for task in requested)
        classes = self._class_folders() if plain else []
        tasks = []
        for task in requested:
            if not task.classes and task.kind == "segment":
                task = task.with_classes(self._segment_classes(task))
            elif not task.classes and not task.dense:
                task = task.with_classes(classes)
            tasks.append(task)
        return tuple(tasks)

    def _class_folders(self) -> list[str]:
        """Return the names of folders with an image; those without one are ignored with a note."""
        probe = Walk(self._root)
        found: dict[str, bool] = {}
        for _, folder in self._parts:
            for name in self._walk.folders(folder):
                path = f"{folder}/{name}" if folder else name
                found[name] = found.get(name, False) or any(True for _ in probe.images(path))
        if empty := [name for name, filled in found.items() if not filled]:
            self._walk.remarks.append(f"ignored, class folders without images: {counted(empty)}")
        return sorted(name for name, filled in found.items() if filled)

    def _segment_classes(self, task: Task) -> list[str]:
        """Return the classes in classes.txt, else "0" to the largest index in the maps."""
        lists: dict[str, list[str]] = {}
        for _, folder in self._parts:
            name = f"{folder.partition('images')[0]}{self._folder_of(task)}/classes.txt"
            path = self._root.find(name)
            if path is not None and path.is_file():
                try:
                    lists[name] = [line.strip() for line in path.read_text("utf-8-sig").split("\n")]
                except (OSError, UnicodeDecodeError) as error:
                    raise BadInput(f"{self.name}: cannot read {name}", got=str(error)) from None
                lists[name] = [line for line in lists[name] if line]
        if len({tuple(names) for names in lists.values()}) > 1:
            raise BadInput(f"{self.name}: the lists of classes differ", got=shorten(lists))
        if lists:
            return next(iter(lists.values()))
        largest, read = 0, 0
        for _, folder in self._parts:
            for key in self._walk.images(folder):
                for path in self._targets(key, task):
                    try:
                        largest = max(largest, largest_class(path))
                        read += 1
                    except BadImage:  # reported when it is decoded
                        continue
        self._walk.remarks.append(
            f"{read} maps read to find the largest class index of task {task.name}: {largest} "
            f"({NO_PIXEL} is not labelled); {self._folder_of(task)}/classes.txt can name them"
        )
        return [str(index) for index in range(largest + 1)]


SOURCE = Folder
