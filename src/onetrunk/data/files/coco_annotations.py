"""Annotation files in COCO's format: images, categories, annotations, and masks painted as maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.labels import read_json, unique_names
from onetrunk.data.files.paths import Root
from onetrunk.data.pixels import MAX_PIXELS, BadImage, reason_of
from onetrunk.data.task import NO_PIXEL
from onetrunk.errors import BadInput, Missing, shorten


class Annotations:
    """One annotation file.

    Args:
        name: The name of the file for messages.
        compact: Shrinks each annotation while the file is parsed: coordinates as lists of Python
            numbers would take many times the size of the file.

    Attributes:
        labelled: Whether the file has annotations; that of a test split may have none.
        categories: The names of the classes by id, in the order of the ids.
        of_image: The annotations of each image, by its id.
        by_id: The images by their ids.
    """

    def __init__(
        self, path: Path, name: str, compact: Callable[[dict[str, Any]], Any] | None = None
    ) -> None:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{name}: cannot be read", got=reason_of(error)) from None
        document = read_json(text, name, compact)
        if not isinstance(document, dict) or "images" not in document:
            raise BadInput(f"{name}: expected a table of images, annotations and categories")
        self.name = name
        self.labelled = "annotations" in document
        self.images: list[dict[str, Any]] = self._list(document, "images", ("id", "file_name"))
        self.categories = self._categories(document)
        self.of_image: dict[int, list[dict[str, Any]]] = {}
        self.by_id = {image["id"]: image for image in self.images}
        if len(self.by_id) < len(self.images):
            raise BadInput(f"{name}: two images with the same id")
        for annotation in self._list(document, "annotations", ("image_id", "category_id")):
            if annotation["image_id"] not in self.by_id:
                raise BadInput(
                    f"{name}: an annotation of an unknown image", got=annotation["image_id"]
                )
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
                raise BadInput(f"{self.name}: {key}: expected integer ids", got=str(ids))
        return list(rows)

    def _categories(self, document: dict[str, Any]) -> dict[int, str]:
        rows = sorted(self._list(document, "categories", ("id",)), key=lambda row: row["id"])
        ids = [row["id"] for row in rows]
        if len(set(ids)) < len(ids):
            raise BadInput(f"{self.name}: two categories with the same id")
        return dict(
            zip(ids, unique_names([str(r.get("name", r["id"])) for r in rows], ids), strict=True)
        )


def find_image_folder(folders: Iterable[Path], files: Sequence[str], name: str) -> Path:
    """Return the first folder that contains one of the first few files."""
    existing = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    for folder in existing:
        root = Root(folder)
        paths = [root.find(file) for file in files[:5] if isinstance(file, str)]
        if any(path is not None and path.is_file() for path in paths):
            return folder
    raise BadInput(
        f"{name}: cannot find its images",
        got=shorten(files, 2),
        available=[f"{folder.parent.name}/{folder.name}" for folder in existing],
        try_="add the folder of the images to the source's name, or move them there",
    )


def paint(
    image: dict[str, Any], rows: list[dict[str, Any]], index: dict[int, int]
) -> NDArray[np.uint8]:
    """Paint a map of classes: first crowds (255), then objects from large to small."""
    size = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise BadImage(f"expected its size in the annotation file, got {size}")
    height, width = int(size[0] or 0), int(size[1] or 0)
    if height * width > MAX_PIXELS:
        raise BadImage(f"{width}×{height} pixels are over the limit of {MAX_PIXELS:,}")
    painted = np.zeros(height * width, np.uint8)  # column by column, as run lengths are
    shapes = [_runs_of(row.get("segmentation"), height, width) for row in rows]
    areas = [sum(runs[1::2]) for runs in shapes]
    crowds = [bool(row.get("iscrowd")) for row in rows]
    for at in sorted(range(len(rows)), key=lambda at: (not crowds[at], -areas[at], at)):
        value = NO_PIXEL if crowds[at] else index[rows[at]["category_id"]]
        ends = np.cumsum(shapes[at])
        for start, end in zip(ends[0::2], ends[1::2], strict=False):
            painted[start:end] = value
    return np.ascontiguousarray(painted.reshape(width, height).T)


def _runs_of(segmentation: Any, height: int, width: int) -> list[int]:
    """Return one object as run lengths, alternately outside and inside, down the columns.

    All values are checked first, because pycocotools does not check them in its C code.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size") or []) != [height, width]:
            raise BadImage(f"a mask of another size, {segmentation.get('size')}")
        counts = segmentation.get("counts")
        runs = _unpack(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or any(not isinstance(n, int) or n < 0 for n in runs):
            raise BadImage("a mask with invalid run lengths")
        if sum(runs) != height * width:
            raise BadImage("a mask whose run lengths do not fill the image")
        return runs
    polygons = [polygon for polygon in segmentation or [] if len(polygon) > 0]
    limit = 4 * max(height, width) + 1000
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BadImage("a polygon with fewer than three corners")
        if not all(math.isfinite(c) and abs(c) <= limit for c in polygon):
            raise BadImage("a polygon far outside the image")
    if not polygons:
        return [height * width]
    mask = import_mask("coco")
    merged = mask.merge(mask.frPyObjects([list(p) for p in polygons], height, width))
    return _unpack(merged["counts"].decode("ascii")) or [height * width]


def _unpack(text: str) -> list[int] | None:
    """Decode COCO's run lengths: 5 bits per letter, stored as differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 50:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if shift == 0 else None


def compact(row: dict[str, Any]) -> dict[str, Any]:
    """Reduce a parsed annotation to what is needed, with coordinates as arrays."""
    if "image_id" not in row or "category_id" not in row:
        return row
    kept: dict[str, Any] = {
        key: row[key] for key in ("image_id", "category_id", "iscrowd") if key in row
    }
    shape = row.get("segmentation")
    if isinstance(shape, list):
        try:
            shape = [np.asarray(polygon, np.float64).reshape(-1) for polygon in shape]
        except (TypeError, ValueError):
            shape = [np.full(1, np.nan)]
    kept["segmentation"] = shape
    return kept


def import_mask(name: str) -> Any:
    """Import the module `mask` of pycocotools; `name` is that of the source, for the error."""
    try:
        from pycocotools import mask
    except ImportError:
        raise Missing("pycocotools", "coco", f"{name}: masks") from None
    return mask
