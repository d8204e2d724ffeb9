"""`unlabelled:ROOT`: every image below a folder, without labels, for distillation.

ROOT/train, ROOT/val and ROOT/test are splits if there are no other folders; otherwise folders have
no meaning. The classes of the tasks are part of the settings. Without any task there is one `embed`
task, for the distillation of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onetrunk.data.files.paths import Root, existing_folder, split_of, stamp
from onetrunk.data.files.walk import Walk
from onetrunk.data.sources import Item, NoTargets, SourceOptions
from onetrunk.data.task import LABELLED, Task
from onetrunk.errors import BadInput


class Unlabelled(NoTargets):
    """A folder of images."""

    unlabelled = True

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"unlabelled:{rest}"
        self.notes: list[str] = []
        self._root = Root(existing_folder(options.base, rest, "unlabelled"))
        self.tasks = options.tasks or (Task("embed", "embed"),)
        for task in self.tasks:
            if task.kind in LABELLED and task.kind != "embed" and not task.classes:
                raise BadInput(
                    f"{self.name}: expected classes for task {task.name}, as there are no labels",
                    got="no classes",
                    try_=f'tasks = {{ {task.name} = {{ kind = "{task.kind}", classes = [the '
                    "classes of its teacher] } }",
                )

    def items(self) -> Iterator[Item]:
        """Yield every image file, in the order of their paths."""
        walk = Walk(self._root)
        top = walk.folders("")
        has_splits = bool(top) and all(map(split_of, top)) and not walk.files("")
        labels = {task.name: None for task in self.tasks if not task.dense}
        listed = 0
        for key in walk.images(""):
            listed += 1
            split = split_of(key.partition("/")[0]) if has_splits else None
            yield Item(key, key, stamp(self._root.folder / key), split, labels=dict(labels))
        if not listed:
            walk.problems.append("no images")
        walk.raise_problems(self.name)
        self.notes = walk.notes()

    def image(self, where: str) -> Path:
        """Return the path of an image."""
        return self._root.open(where)


SOURCE = Unlabelled
