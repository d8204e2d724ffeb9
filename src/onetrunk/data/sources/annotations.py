"""Annotation files in the layout of COCO: images, categories, annotations of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from onetrunk.data.sources.common import Root, distinct, read_json, some
from onetrunk.errors import BadInput


class Annotations:
    """One file: its images, its classes in the order of their ids, what it says of each image."""

    def __init__(
        self, path: Path, name: str, compact: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{name}: cannot be read", got=error.strerror or str(error)) from None
        # `compact` shrinks each annotation as it is parsed: coordinates as lists of Python numbers
        # would take many times the file's size.
        document = read_json(text, name, **({"object_hook": compact} if compact else {}))
        if not isinstance(document, dict) or "images" not in document:
            raise BadInput(f"{name}: expected a document with images, annotations and categories")
        self.name = name
        self.labelled = "annotations" in document  # a test file has none
        self.images: list[dict[str, Any]] = self._list(document, "images", ("id", "file_name"))
        self.categories = self._categories(document)
        self.of_image: dict[int, list[dict[str, Any]]] = {}  # image's id -> its annotations
        known = {image["id"] for image in self.images}
        if len(known) < len(self.images):
            raise BadInput(f"{name}: two images with the same id")
        for annotation in self._list(document, "annotations", ("image_id", "category_id")):
            if annotation["image_id"] not in known:
                raise BadInput(f"{name}: annotation of no image", got=annotation["image_id"])
            if annotation["category_id"] not in self.categories:
                raise BadInput(
                    f"{name}: image {annotation['image_id']}: a label outside the classes",
                    got=annotation["category_id"],
                    available=map(str, self.categories),
                )
            self.of_image.setdefault(annotation["image_id"], []).append(annotation)

    def _list(self, document: dict[str, Any], key: str, keys: Sequence[str]) -> list[Any]:
        rows = document.get(key) or []
        for row in rows if isinstance(rows, list) else [rows]:
            if not isinstance(row, dict) or any(k not in row for k in keys):
                raise BadInput(f"{self.name}: {key}: expected {', '.join(keys)}", got=str(row)[:80])
            ids = [row[k] for k in keys if k != "file_name"]
            if any(not isinstance(i, int) for i in ids):
                raise BadInput(f"{self.name}: {key}: ids are whole numbers", got=str(ids))
        return list(rows)

    def _categories(self, document: dict[str, Any]) -> dict[int, str]:
        rows = sorted(self._list(document, "categories", ("id",)), key=lambda row: row["id"])
        ids = [row["id"] for row in rows]
        if len(set(ids)) < len(ids):
            raise BadInput(f"{self.name}: two categories with the same id")
        return dict(
            zip(ids, distinct([str(r.get("name", r["id"])) for r in rows], ids), strict=True)
        )


def first_that_holds(folders: Iterable[Path], files: Sequence[str], name: str) -> Path:
    """The first of some likely folders that holds one of the first files."""
    looked = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    for folder in looked:
        root = Root(folder)
        paths = [root.find(file) for file in files[:5] if isinstance(file, str)]
        if any(path is not None and path.is_file() for path in paths):
            return folder
    raise BadInput(
        f"{name}: none of its first images found",
        got=some(files, 2),
        available=[f"{folder.parent.name}/{folder.name}" for folder in looked],
        try_="name the folder of the images behind it, or put them there",
    )
