"""`decathlon:ROOT/NAME` (or `decathlon:ROOT:NAME`): one domain of the Visual Decathlon.

ROOT holds annotations/NAME_train.json, NAME_val.json and NAME_test_stripped.json, and the images
their `file_name` speaks of: data/NAME/train/… . Test images carry no labels. Sylvestre-Alvise
Rebuffi, Hakan Bilen, Andrea Vedaldi, "Learning multiple visual domains with residual adapters",
NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onetrunk.data.files.coco_annotations import Annotations, first_that_holds
from onetrunk.data.files.paths import Root, only, outside, place, some, stamp
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import Task
from onetrunk.errors import BadInput

FILES = {
    "train": ("{}_train.json",),
    "val": ("{}_val.json",),
    "test": ("{}_test.json", "{}_test_stripped.json"),
}
FOLDERS = ("", "decathlon-1.0", "decathlon-1.0-data")  # as the two archives unpack


class Decathlon:
    """Images of one domain, with the challenge's own splits."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        self.name = f"decathlon:{rest}"
        self.notes: list[str] = []
        root, colon, domain = rest.rpartition(":")
        if not colon or "/" in domain or "\\" in domain:  # the colon of a drive is none of ours
            root, _, domain = rest.replace("\\", "/").rstrip("/").rpartition("/")
        self.domain = domain  # the name that the challenge gives it
        folder = place(asked.base, root or ".", "decathlon")
        self._files = self._find(folder, domain)
        self._read: dict[str, Annotations] = {}
        for split, file in self._files.items():
            self._read[split] = Annotations(file, f"{self.name}: {file.name}")
        train = self._read["train"]
        for split, part in self._read.items():
            if part.labelled and part.of_image and part.categories != train.categories:
                raise BadInput(f"{self.name}: the categories of train and {split} differ")
        missing = [split for split in FILES if split not in self._files]
        if missing:
            self.notes.append(f"no annotations of {some(missing)}")
        names = [str(image["file_name"]) for image in train.images]
        if not names:
            raise BadInput(f"{self.name}: no images in {self._files['train'].name}")
        self._strip = ""
        self._root = Root(self._images(folder, names))
        asked_tasks = asked.tasks or (Task("classify", "classify"),)
        only(
            self.name, asked_tasks, ("classify", "embed"), "every domain of it is a classification"
        )
        classes = list(train.categories.values())
        self.tasks = tuple(t if t.classes else t.with_classes(classes) for t in asked_tasks)

    def items(self) -> Iterator[Item]:
        """Every image of every split, in the order of their names."""
        for split, part in self._read.items():
            for image in sorted(part.images, key=lambda image: str(image["file_name"])):
                name = str(image["file_name"])
                key = self._key(name, split)
                rows = part.of_image.get(image["id"], [])
                found = {part.categories[row["category_id"]] for row in rows}
                if len(found) > 1:
                    raise BadInput(
                        f"{self.name}: {self._files[split].name}: {name}: expected one class",
                        got=some(sorted(found)),
                    )
                label = found.pop() if found else None
                labels = {task.name: label for task in self.tasks}
                yield Item(key, key, stamp(self._root.folder / key), split, labels=labels)

    def image(self, where: str) -> Path:
        """The image's path."""
        return self._root.open(where)

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """It has none."""
        return None

    def test_ids(self) -> dict[str, int]:
        """By their keys the ids of all test images, as the evaluation server knows them."""
        if "test" not in self._read:
            raise BadInput(
                f"{self.name}: no annotations of test, so nobody knows its images' ids",
                available=[file.name for file in self._files.values()],
                try_=f"put {self.domain}_test_stripped.json beside them",
            )
        part = self._read["test"]
        return {self._key(str(image["file_name"]), "test"): image["id"] for image in part.images}

    def category_ids(self) -> dict[str, int]:
        """By its name each class's id."""
        return {name: number for number, name in self._read["train"].categories.items()}

    def _key(self, name: str, split: str) -> str:
        """An image's name in the folder of all images."""
        path = self._root.find(name.removeprefix(self._strip))
        if path is None:
            raise outside(f"{self.name}: {self._files[split].name}", name)
        return self._root.key(path)

    def _find(self, folder: Path, domain: str) -> dict[str, Path]:
        for inner in FOLDERS:
            annotations = folder / inner / "annotations"
            found = {
                split: path
                for split, names in FILES.items()
                for name in reversed(names)
                if (path := annotations / name.format(domain)).is_file()
            }
            if "train" in found:
                return found
        known = {
            path.name.removesuffix("_train.json")
            for inner in FOLDERS
            for path in (folder / inner / "annotations").glob("*_train.json")
        }
        raise BadInput(
            f"{self.name}: expected annotations/{domain}_train.json",
            got=domain,
            available=sorted(known),
            try_="decathlon:ROOT/NAME, ROOT being the folder that holds annotations/ and data/",
        )

    def _images(self, folder: Path, names: list[str]) -> Path:
        """The folder that file names start at; some unpack the images without `data/`."""
        likely = [folder / inner for inner in FOLDERS]
        try:
            return first_that_holds(likely, names, self.name)
        except ValueError:
            self._strip = "data/"
            short = [name.removeprefix(self._strip) for name in names]
            return first_that_holds(likely, short, self.name)


SOURCE = Decathlon
