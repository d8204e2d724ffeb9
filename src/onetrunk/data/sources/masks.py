"""Masks of COCO's annotations, polygons and run lengths, painted into one map of classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.pixels import MAX_PIXELS, BadImage
from onetrunk.data.task import NO_PIXEL
from onetrunk.errors import Missing


def paint(
    image: dict[str, Any], rows: list[dict[str, Any]], index: dict[int, int]
) -> NDArray[np.uint8]:
    """A map of classes: crowds (255) lowest, then objects from the largest to the smallest."""
    size = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise BadImage(f"its file of annotations gives no size, came {size}")
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
    """One object as run lengths, off and on in turn, down the columns.

    The C code behind pycocotools trusts what it is given, so all of it is checked before.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size") or []) != [height, width]:
            raise BadImage(f"a mask of another size, {segmentation.get('size')}")
        counts = segmentation.get("counts")
        runs = _unpack(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or any(not isinstance(n, int) or n < 0 for n in runs):
            raise BadImage("a mask whose run lengths are no counts")
        if sum(runs) != height * width:
            raise BadImage("a mask whose run lengths do not fill the image")
        return runs
    polygons = [polygon for polygon in segmentation or [] if len(polygon) > 0]
    limit = 4 * max(height, width) + 1000
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BadImage("a polygon needs three corners or more")
        if not all(math.isfinite(c) and abs(c) <= limit for c in polygon):
            raise BadImage("a polygon far outside the image")
    if not polygons:
        return [height * width]
    mask = tool("coco")
    merged = mask.merge(mask.frPyObjects([list(p) for p in polygons], height, width))
    return _unpack(merged["counts"].decode("ascii")) or [height * width]


def _unpack(text: str) -> list[int] | None:
    """COCO's compressed run lengths: 5 bits a letter, signed, differences from two before."""
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
    """An annotation as it is parsed: only what is needed, coordinates as packed numbers."""
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


def tool(name: str) -> Any:
    """pycocotools' masks."""
    try:
        from pycocotools import mask
    except ImportError:
        raise Missing("pycocotools", "coco", f"{name}: masks") from None
    return mask
