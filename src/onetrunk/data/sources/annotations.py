"""Annotation files in the layout of COCO: images, categories, annotations of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from onetrunk.data.sources.common import Root, distinct, read_json, some
from onetrunk.errors import wrong


class Annotations:
    """One file: its images, its classes in the order of their ids, what it says of each image."""

    def __init__(
        self, path: Path, name: str, compact: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise wrong(f"{name}: cannot be read", came=error.strerror or str(error)) from None
        # `compact` shrinks each annotation as it is parsed: coordinates as lists of Python numbers
        # would take many times the file's size.
        document = read_json(text, name, **({"object_hook": compact} if compact else {}))
        if not isinstance(document, dict) or "images" not in document:
            raise wrong(f"{name}: expected a document with images, annotations and categories")
        self.name = name
        self.labelled = "annotations" in document  # a test file has none
        self.images: list[dict[str, Any]] = self._list(document, "images", ("id", "file_name"))
        self.categories = self._categories(document)
        self.of_image: dict[int, list[dict[str, Any]]] = {}  # image's id -> its annotations
        known = {image["id"] for image in self.images}
        if len(known) < len(self.images):
            raise wrong(f"{name}: two images with the same id")
        for annotation in self._list(document, "annotations", ("image_id", "category_id")):
            if annotation["image_id"] not in known:
                raise wrong(f"{name}: annotation of no image", came=annotation["image_id"])
            if annotation["category_id"] not in self.categories:
                raise wrong(
                    f"{name}: image {annotation['image_id']}: a label outside the classes",
                    came=annotation["category_id"],
                    exists=map(str, self.categories),
                )
            self.of_image.setdefault(annotation["image_id"], []).append(annotation)

    def _list(self, document: dict[str, Any], key: str, keys: Sequence[str]) -> list[Any]:
        rows = document.get(key) or []
        for row in rows if isinstance(rows, list) else [rows]:
            if not isinstance(row, dict) or any(k not in row for k in keys):
                raise wrong(f"{self.name}: {key}: expected {', '.join(keys)}", came=str(row)[:80])
            ids = [row[k] for k in keys if k != "file_name"]
            if any(not isinstance(i, int) for i in ids):
                raise wrong(f"{self.name}: {key}: ids are whole numbers", came=str(ids))
        return list(rows)

    def _categories(self, document: dict[str, Any]) -> dict[int, str]:
        rows = sorted(self._list(document, "categories", ("id",)), key=lambda row: row["id"])
        ids = [row["id"] for row in rows]
        if len(set(ids)) < len(ids):
            raise wrong(f"{self.name}: two categories with the same id")
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
    raise wrong(
        f"{name}: none of its first images found",
        came=some(files, 2),
        exists=[f"{folder.parent.name}/{folder.name}" for folder in looked],
        next="name the folder of the images behind it, or put them there",
    )
