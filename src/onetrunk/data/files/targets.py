"""Files of dense targets.

- segment: a PNG (or WebP) with one class index per pixel (grey or palette), 255 = not labelled; or
  an NPY of integers, where -1 is not labelled as well.
- depth: an NPY of floats in metres, or a 16-bit PNG in millimetres; 0, NaN and infinity = unknown.
- normals: an NPY (H, W, 3) of unit vectors (x right, y up, z to the viewer); 0 and NaN = unknown.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.pixels import MAX_PIXELS, BadImage, reason_of
from onetrunk.data.task import NO_PIXEL, Kind, Task

ENDINGS: dict[Kind, tuple[str, ...]] = {
    "segment": (".png", ".webp", ".npy"),
    "depth": (".npy", ".png"),
    "normals": (".npy",),
}
DENSE_KINDS = tuple(ENDINGS)


def read_target(task: Task, raw: Path | bytes) -> NDArray[Any]:
    """Read a target as `Source.target` returns it; raise BadImage with the reason."""
    with as_bad_image(task.name):
        if task.kind == "segment":
            return _segment(raw, len(task.classes))
        return _depth(raw) if task.kind == "depth" else _normals(raw)


@contextmanager
def as_bad_image(name: str) -> Iterator[None]:
    """Turn any error of the block, which reads a broken file, into a BadImage with this name."""
    try:
        yield
    except FileNotFoundError:
        raise BadImage(f"{name}: no such file") from None
    except Exception as error:  # decoders may raise any exception
        raise BadImage(f"{name}: {reason_of(error)}") from None


def largest_class(raw: Path | bytes) -> int:
    """Return the largest class index of a map, -1 if no pixel is labelled."""
    return _largest(read_target(Task("map", "segment"), raw))


def _picture(raw: Path | bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw)
    if picture.width * picture.height > MAX_PIXELS:
        raise BadImage(f"{picture.width}×{picture.height} pixels are over the limit")
    return picture


def _segment(raw: Path | bytes, classes: int) -> NDArray[np.uint8]:
    labels = _npy_indices(raw) if _is_npy(raw) else _picture_indices(raw)
    if labels.min(initial=0) < 0 or labels.max(initial=0) > NO_PIXEL:
        raise BadImage(f"expected class indices of 0 to 254, got up to {labels.max()}")
    labels = labels.astype(np.uint8)
    largest = _largest(labels)
    if classes and largest >= classes:
        raise BadImage(f"class index {largest} is outside the {classes} classes")
    return labels


def _picture_indices(raw: Path | bytes) -> NDArray[Any]:
    picture = _picture(raw)
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise BadImage(f"expected a class index per pixel (grey or palette), got {picture.mode}")
    return np.asarray(picture)


def _npy_indices(raw: Path | bytes) -> NDArray[Any]:
    labels = read_npy(raw, "fiu")
    if labels.ndim != 2:
        raise BadImage(f"expected class indices (H, W), got {labels.shape}")
    if not (labels == np.floor(labels)).all():  # false for NaN as well
        raise BadImage("expected integers")
    return np.where(labels == -1, NO_PIXEL, labels)


def _largest(labels: NDArray[np.uint8]) -> int:
    labelled = labels[labels != NO_PIXEL]
    return int(labelled.max()) if labelled.size else -1


def _depth(raw: Path | bytes) -> NDArray[np.float32]:
    if _is_npy(raw):
        metres = read_npy(raw)
        if metres.ndim == 3 and metres.shape[2] == 1:
            metres = metres[:, :, 0]
        if metres.ndim != 2:
            raise BadImage(f"expected depth (H, W), got {metres.shape}")
    else:
        picture = _picture(raw)
        if not picture.mode.startswith("I"):
            raise BadImage(f"expected a 16-bit PNG in millimetres, got mode {picture.mode}")
        metres = np.asarray(picture).astype(np.float32) / 1000
    metres = np.nan_to_num(metres.astype(np.float32), nan=0.0, posinf=0.0, neginf=-1.0)
    if metres.min(initial=0) < 0:
        raise BadImage("depth below 0 metres")
    return metres


def _normals(raw: Path | bytes) -> NDArray[np.float32]:
    normals = read_npy(raw)
    if normals.ndim != 3 or normals.shape[2] != 3:
        raise BadImage(f"expected normals (H, W, 3), got {normals.shape}")
    normals = np.nan_to_num(normals.astype(np.float32), nan=0.0, posinf=2.0, neginf=-2.0)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    known = length > 0.5
    if (length > 1.1).any() or ((length > 0.01) & (length < 0.9)).any():
        raise BadImage("expected unit vectors (0 for unknown)")
    return np.where(known, normals / np.maximum(length, 0.5), 0).astype(np.float32)


def _is_npy(raw: Path | bytes) -> bool:
    return raw[:6] == b"\x93NUMPY" if isinstance(raw, bytes) else raw.suffix.lower() == ".npy"


def read_npy(raw: Path | bytes, kinds: str = "f") -> NDArray[Any]:
    """Read an NPY array of these kinds of numbers (numpy's letters); never a pickle.

    A file is memory-mapped, so that a header with a false shape costs no memory.
    """
    if isinstance(raw, bytes):
        array = np.load(io.BytesIO(raw), allow_pickle=False)
    else:
        array = np.load(raw, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        got = getattr(array, "dtype", "an archive")
        raise BadImage(f"expected an NPY of {'floats' if kinds == 'f' else 'numbers'}, got {got}")
    if array.ndim < 2 or array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise BadImage(f"expected a map of at most {MAX_PIXELS:,} pixels, got {array.shape}")
    return array
