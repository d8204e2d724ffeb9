"""`coco:FILE.json[:IMAGES]` or `coco:ROOT`: masks and categories of COCO's instance files.

ROOT holds annotations/instances_{train,val,…}*.json, and the images in train2017/ and so on.

- segment: class 0 is "background", then the categories in the order of their ids. Smaller objects
  are painted over larger ones; crowds are not labelled.
- multilabel: the categories in an image.

An image without annotations has none of the categories. The images of a file without annotations
are not labelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.files.coco_annotations import (
    Annotations,
    compact,
    find_image_folder,
    import_mask,
    paint,
)
from onetrunk.data.files.labels import check_kinds, fixed_classes, unique_names
from onetrunk.data.files.paths import Root, existing_path, outside, split_in, stamp
from onetrunk.data.sources import Item, Label, SourceOptions
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.errors import BadInput


class Coco:
    """One annotation file, or a folder of them."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"coco:{rest}"
        self.notes: list[str] = []
        file, images = _parse(rest)
        path = existing_path(options.base, file, "coco")
        files = _annotation_files(path, self.name) if path.is_dir() else [path]
        folder = Path(options.base, images) if images else None
        self._parts = [_Part(file, self.name, folder) for file in files]
        by_split: dict[str | None, list[str]] = {}
        for part in self._parts:
            by_split.setdefault(part.split, []).append(part.file.name)
        if len(self._parts) > 1 and (
            twice := [v for s, v in by_split.items() if len(v) > 1 or not s]
        ):
            raise BadInput(
                f"{self.name}: expected one file per split",
                available=[name for names in twice for name in names],
                try_=f"coco:{file}/annotations/{twice[0][0]}",
            )
        categories = self._parts[0].read().categories
        for part in self._parts[1:]:
            if part.labelled and part.read().categories != categories:
                raise BadInput(
                    f"{self.name}: the categories of its files differ", got=part.file.name
                )
        self._index = {category: index for index, category in enumerate(categories, 1)}
        self._names = list(categories.values())
        self.tasks = self._read_tasks(options.tasks)

    def items(self) -> Iterator[Item]:
        """Yield every image of every file, in the order of their names."""
        for at, part in enumerate(self._parts):
            document = part.read()
            root = part.root()
            file_stamp = stamp(part.file)
            for image in sorted(document.images, key=lambda image: str(image["file_name"])):
                path = root.find(str(image["file_name"]))
                if path is None:
                    raise outside(f"{self.name}: {part.file.name}", str(image["file_name"]))
                name = root.key(path)
                labels: dict[str, Label] = {}
                for task in self.tasks:
                    if task.kind == "multilabel" and document.labelled:
                        rows = document.of_image.get(image["id"], [])
                        present = sorted({self._index[row["category_id"]] for row in rows})
                        labels[task.name] = tuple(self._names[index - 1] for index in present)
                    elif task.kind == "multilabel":
                        labels[task.name] = None
                dense = any(task.dense for task in self.tasks)
                yield Item(
                    f"{root.folder.name}/{name}",
                    f"{at}:{image['id']}:{name}",
                    f"{stamp(path)}+{file_stamp}" if dense else stamp(path),
                    part.split,
                    labels=labels,
                )

    def image(self, where: str) -> Path:
        """Return the path of an image."""
        at, _, name = where.split(":", 2)
        return self._parts[int(at)].root().open(name)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the map of classes, painted from polygons and run lengths."""
        if next(t for t in self.tasks if t.name == task).kind != "segment":
            return None
        at, number, _ = where.split(":", 2)
        document = self._parts[int(at)].read()
        if not document.labelled:
            return None
        image = document.by_id[int(number)]
        return paint(image, document.of_image.get(int(number), []), self._index)

    def _read_tasks(self, requested: tuple[Task, ...] | None) -> tuple[Task, ...]:
        requested = (Task("segment", "segment"),) if requested is None else requested
        check_kinds(
            self.name, requested, ("segment", "multilabel"), "a table: source for other tasks"
        )
        tasks = []
        for task in requested:
            names = self._names
            if task.kind == "segment":
                import_mask(self.name)
                names = unique_names(["background", *names], range(len(names) + 1))
                if len(names) > NO_PIXEL:
                    raise BadInput(
                        f"{self.name}: expected at most 254 categories beside the background",
                        got=len(names) - 1,
                        try_='tasks = ["multilabel"], or a file with fewer categories',
                    )
            tasks.append(fixed_classes(self.name, task, names))
        return tuple(tasks)


SOURCE = Coco


class _Part:
    """One annotation file with the folder of its images, read once when it is needed."""

    def __init__(self, file: Path, source: str, images: Path | None) -> None:
        self.file = file
        self.split = split_in(file.stem)
        self.labelled = True
        self._source = source
        self._images = images
        self._document: Annotations | None = None
        self._root: Root | None = None

    def read(self) -> Annotations:
        """Return the annotations."""
        if self._document is None:
            name = f"{self._source}: {self.file.name}"
            self._document = Annotations(self.file, name, compact)
            self.labelled = self._document.labelled
        return self._document

    def root(self) -> Root:
        """Return the folder of the images."""
        if self._root is None:
            suffix = self.file.stem.rpartition("_")[2]
            above = self.file.parent.parent
            likely = [above / suffix, above / "images" / suffix, above / str(self.split)]
            likely += [above / "images", self.file.parent, above]
            names = [str(image["file_name"]) for image in self.read().images]
            if not names:
                raise BadInput(f"{self._source}: {self.file.name}: no images")
            folders = likely if self._images is None else [self._images]
            self._root = Root(
                find_image_folder(folders, names, f"{self._source}: {self.file.name}")
            )
        return self._root


def _parse(rest: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+?\.json):(.+)", rest)
    return (match[1], match[2]) if match else (rest, None)


def _annotation_files(root: Path, name: str) -> list[Path]:
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise BadInput(
            f"{name}: expected files annotations/instances_*.json",
            available=sorted(path.name for path in root.glob("*/*.json")),
            try_="coco:FILE.json:IMAGES",
        )
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(files, key=lambda file: (order.get(str(split_in(file.stem)), 3), file.name))
