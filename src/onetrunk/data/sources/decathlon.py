"""`decathlon:ROOT/NAME` (or `decathlon:ROOT:NAME`): one domain of the Visual Decathlon.

ROOT holds annotations/NAME_train.json, NAME_val.json and NAME_test_stripped.json, and the images
that they list: data/NAME/train/…. Test images have no labels. Rebuffi, Bilen & Vedaldi, "Learning
multiple visual domains with residual adapters", NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onetrunk.data.files.coco_annotations import Annotations, find_image_folder
from onetrunk.data.files.labels import check_kinds
from onetrunk.data.files.paths import Root, existing_path, outside, stamp
from onetrunk.data.sources import Item, NoTargets, SourceOptions
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, shorten

FILES = {
    "train": ("{}_train.json",),
    "val": ("{}_val.json",),
    "test": ("{}_test.json", "{}_test_stripped.json"),
}
FOLDERS = ("", "decathlon-1.0", "decathlon-1.0-data")  # of the two unpacked archives


class Decathlon(NoTargets):
    """One domain of the challenge, with its splits."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"decathlon:{rest}"
        self.notes: list[str] = []
        root, colon, domain = rest.rpartition(":")
        if not colon or "/" in domain or "\\" in domain:  # not the colon of a drive
            root, _, domain = rest.replace("\\", "/").rstrip("/").rpartition("/")
        self.domain = domain  # its name in the challenge
        folder = existing_path(options.base, root or ".", "decathlon")
        self._files = self._find(folder, domain)
        self._parts = {
            split: Annotations(file, f"{self.name}: {file.name}")
            for split, file in self._files.items()
        }
        train = self._parts["train"]
        for split, part in self._parts.items():
            if part.labelled and part.of_image and part.categories != train.categories:
                raise BadInput(f"{self.name}: the categories of train and {split} differ")
        missing = [split for split in FILES if split not in self._files]
        if missing:
            self.notes.append(f"no annotations of {shorten(missing)}")
        names = [str(image["file_name"]) for image in train.images]
        if not names:
            raise BadInput(f"{self.name}: no images in {self._files['train'].name}")
        self._strip = ""
        self._root = Root(self._images(folder, names))
        tasks = options.tasks or (Task("classify", "classify"),)
        check_kinds(self.name, tasks, ("classify", "embed"), "kind = 'classify'")
        classes = list(train.categories.values())
        self.tasks = tuple(t if t.classes else t.with_classes(classes) for t in tasks)

    def items(self) -> Iterator[Item]:
        """Yield every image of every split, in the order of their names."""
        for split, part in self._parts.items():
            for image in sorted(part.images, key=lambda image: str(image["file_name"])):
                name = str(image["file_name"])
                key = self._key(name, split)
                rows = part.of_image.get(image["id"], [])
                names = {part.categories[row["category_id"]] for row in rows}
                if len(names) > 1:
                    raise BadInput(
                        f"{self.name}: {self._files[split].name}: {name}: expected one class",
                        got=shorten(sorted(names)),
                    )
                label = names.pop() if names else None
                labels = {task.name: label for task in self.tasks}
                yield Item(key, key, stamp(self._root.folder / key), split, labels=labels)

    def image(self, where: str) -> Path:
        """Return the path of an image."""
        return self._root.open(where)

    def test_ids(self) -> dict[str, int]:
        """Return the ids of all test images for the evaluation server, by their keys."""
        if "test" not in self._parts:
            raise BadInput(
                f"{self.name}: without the annotations of test, the ids of its images are unknown",
                available=[file.name for file in self._files.values()],
                try_=f"add {self.domain}_test_stripped.json to them",
            )
        part = self._parts["test"]
        return {self._key(str(image["file_name"]), "test"): image["id"] for image in part.images}

    def category_ids(self) -> dict[str, int]:
        """Return the id of each class by its name."""
        return {name: number for number, name in self._parts["train"].categories.items()}

    def _key(self, name: str, split: str) -> str:
        """Return the key of an image from its name in the annotations."""
        path = self._root.find(name.removeprefix(self._strip))
        if path is None:
            raise outside(f"{self.name}: {self._files[split].name}", name)
        return self._root.key(path)

    def _find(self, folder: Path, domain: str) -> dict[str, Path]:
        for inner in FOLDERS:
            annotations = folder / inner / "annotations"
            files = {
                split: path
                for split, names in FILES.items()
                for name in reversed(names)
                if (path := annotations / name.format(domain)).is_file()
            }
            if "train" in files:
                return files
        known = {
            path.name.removesuffix("_train.json")
            for inner in FOLDERS
            for path in (folder / inner / "annotations").glob("*_train.json")
        }
        raise BadInput(
            f"{self.name}: expected annotations/{domain}_train.json",
            got=domain,
            available=sorted(known),
            try_="decathlon:ROOT/NAME, where ROOT holds annotations/ and data/",
        )

    def _images(self, folder: Path, names: list[str]) -> Path:
        """Return the folder where the names of images start; `data/` may be missing in it."""
        likely = [folder / inner for inner in FOLDERS]
        try:
            return find_image_folder(likely, names, self.name)
        except BadInput:
            self._strip = "data/"
            short = [name.removeprefix(self._strip) for name in names]
            return find_image_folder(likely, short, self.name)


SOURCE = Decathlon
