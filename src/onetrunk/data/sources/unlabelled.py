"""`unlabelled:ROOT`: every image below a folder, without labels: what teachers alone teach of.

Folders in it mean nothing, but for ROOT/train, ROOT/val, ROOT/test and their like where there are
no others. Tasks have classes of the user's naming; without any it has an `embed` task, whose images
only lend their features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onetrunk.data.files.paths import Root, place, split_of, stamp
from onetrunk.data.files.walk import Walk
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import LABELLED, Task
from onetrunk.errors import BadInput


class Unlabelled:
    """A folder of images."""

    unlabelled = True  # no label is expected, in no split

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        self.name = f"unlabelled:{rest}"
        self.notes: list[str] = []
        folder = place(asked.base, rest, "unlabelled")
        if not folder.is_dir():
            raise BadInput(f"{self.name}: expected a folder, and this is a file")
        self._root = Root(folder)
        self.tasks = asked.tasks or (Task("embed", "embed"),)
        for task in self.tasks:
            if task.kind in LABELLED and task.kind != "embed" and not task.classes:
                raise BadInput(
                    f"{self.name}: task {task.name} has no labels to take its classes from",
                    got="no classes",
                    try_=f'tasks = {{ {task.name} = {{ kind = "{task.kind}", classes = [those of '
                    "its teacher] } }",
                )

    def items(self) -> Iterator[Item]:
        """Every image file, in the order of its path."""
        walk = Walk(self._root)
        top = walk.folders("")
        split = bool(top) and all(map(split_of, top)) and not walk.files("")
        none = {task.name: None for task in self.tasks if not task.dense}
        listed = 0
        for key in walk.images(""):
            listed += 1
            where = split_of(key.partition("/")[0]) if split else None
            yield Item(key, key, stamp(self._root.folder / key), where, labels=dict(none))
        if not listed:
            walk.wrong.append("no images")
        walk.stop_if_wrong(self.name)
        self.notes = walk.notes()

    def image(self, where: str) -> Path:
        """The file's path."""
        return self._root.open(where)

    def target(self, where: str, task: str) -> None:
        """No image has one."""
        return


SOURCE = Unlabelled
