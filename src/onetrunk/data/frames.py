"""The stored images and targets of a source, by row: from the cache, or straight from its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.duplicates import thumbnail
from onetrunk.data.pixels import U8, BadImage, Pixels, Raw, decode
from onetrunk.data.sources import Source
from onetrunk.data.strings import Strings
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.errors import Failed

TODO, GOOD, BAD, UNREADABLE = range(4)  # unreadable: no fault of its content, tried again next time
MAX_BYTES = 512 * 2**20  # of one image file
BLANK, MISNAMED, LONG, TINY = 1, 2, 4, 8  # suspicious, though readable
ENDINGS = {
    b"\xff\xd8\xff": (".jpg", ".jpeg", ".jpe", ".jfif"),
    b"\x89PNG": (".png", ".apng"),
    b"GIF8": (".gif",),
    b"BM": (".bmp", ".dib"),
    b"RIFF": (".webp",),
    b"II*\0": (".tif", ".tiff"),
    b"MM\0*": (".tif", ".tiff"),
}


@dataclass(frozen=True)
class Layer:
    """How a dense task's targets are stored."""

    task: Task
    dtype: str
    channels: tuple[int, ...]
    empty: float  # what stands where nothing is labelled

    def bytes(self, stored: tuple[int, int]) -> int:
        """Of one image's target."""
        return int(np.dtype(self.dtype).itemsize * np.prod((*stored, *self.channels)))


def layers_of(tasks: Sequence[Task]) -> tuple[Layer, ...]:
    """The dense tasks. Half precision gives a normal to 0.02°."""
    how: dict[str, tuple[str, tuple[int, ...], float]] = {
        "segment": ("u1", (), NO_PIXEL),
        "depth": ("<f4", (), 0.0),
        "normals": ("<f2", (3,), 0.0),
    }
    return tuple(Layer(task, *how[task.kind]) for task in tasks if task.dense)


@dataclass
class Looked:
    """What came of reading one image: its record, and its arrays or the reason why not."""

    record: tuple[Any, ...]
    arrays: dict[str, NDArray[Any]]
    why: str = ""


def read_one(source: Source, where: str, pixels: Pixels, layers: Sequence[Layer]) -> Looked:
    """Read, decode and fit one image and its targets, and note what is to be known of it."""
    zero = np.zeros((16, 16), np.uint8)
    try:
        raw = source.image(where)
        if isinstance(raw, str | Path):
            raw = _file(Path(raw))
    except BadImage as error:
        return Looked((BAD, 0, 0, 0, (0, 0), 0, 0, zero), {}, str(error))
    except OSError as error:
        why = f"{error.strerror or error}"
        return Looked((UNREADABLE, 0, 0, 0, (0, 0), 0, 0, zero), {}, why)
    digest = _digest(raw)
    try:
        picture = decode(raw)
        size = (picture.height, picture.width)
        arrays = {"images": pixels.place(picture)}
        arrays |= _targets(source, where, size, pixels, layers)
    except BadImage as error:
        return Looked((BAD, 0, 0, 0, digest, 0, 0, zero), {}, str(error))
    image = arrays["images"]
    record = (GOOD, _suspicious(raw, where, size, image), *size, digest, *_moments(image))
    return Looked((*record, thumbnail(image)), arrays)


def _moments(image_HW3: U8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the values in 0…1 and of their squares, by channel.

    Whole rows are added up, in integers: a sum over three interleaved channels is ten times slower.
    """
    height, width = image_HW3.shape[:2]
    rows = image_HW3.reshape(height, width * 3).astype(np.uint16)
    sums = rows.sum(0, dtype=np.uint64), np.square(rows).sum(0, dtype=np.uint64)
    mean, square = (s.reshape(width, 3).sum(0) / (height * width) for s in sums)
    return mean / 255.0, square / 255.0**2


def _file(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise BadImage(f"a file of {path.stat().st_size:,} bytes, over the limit of {MAX_BYTES:,}")
    return path.read_bytes()


def _targets(
    source: Source, where: str, size: tuple[int, int], pixels: Pixels, layers: Sequence[Layer]
) -> dict[str, NDArray[Any]]:
    """The dense targets at the stored size, through the image's own geometry."""
    arrays: dict[str, NDArray[Any]] = {}
    for layer in layers:
        name = layer.task.name
        shape = (*pixels.stored, *layer.channels)
        target = source.target(where, name)
        if target is None:
            arrays[f"target.{name}"] = np.full(shape, layer.empty, layer.dtype)
            continue
        if target.shape != (*size, *layer.channels):
            raise BadImage(f"its {name} is {target.shape}, the image {size[0]}×{size[1]}")
        target = _checked(layer, target)
        placed = pixels.place_target(target, layer.empty)
        arrays[f"target.{name}"] = np.ascontiguousarray(placed, layer.dtype)
    return arrays


def _checked(layer: Layer, target: NDArray[Any]) -> NDArray[Any]:
    """A target whose every value means something; a target that does not is never guessed at."""
    name, kind = layer.task.name, layer.task.kind
    if kind == "segment":
        if target.dtype.kind not in "ui":
            raise BadImage(f"its {name} holds {target.dtype}, expected whole numbers")
        outside = target[(target != NO_PIXEL) & ~((target >= 0) & (target < layer.task.width))]
        if len(outside):
            raise BadImage(f"its {name} holds {outside[0]}, outside {layer.task.width} classes")
        return target.astype(np.uint8)
    target = np.where(np.isfinite(target), target, 0.0).astype(np.float32)
    if kind == "depth":
        if target.min() < 0:
            raise BadImage(f"its {name} is negative ({target.min():.3g} metres)")
        return target
    length = np.linalg.norm(target, axis=-1, keepdims=True)
    if ((length > 0.01) & (np.abs(length - 1) > 0.1)).any():
        raise BadImage(f"its {name} are no unit vectors")
    return np.where(length > 0.01, target / np.maximum(length, 0.01), 0.0)


def _digest(raw: Raw) -> tuple[int, int]:
    """128 bits of the image's content: its file's bytes, or its pixels where there is no file."""
    if isinstance(raw, Image.Image):
        raw = raw.tobytes()
    elif isinstance(raw, np.ndarray):
        raw = np.ascontiguousarray(raw).tobytes()
    assert isinstance(raw, bytes)
    sum_of = hashlib.blake2b(raw, digest_size=16).digest()
    return int.from_bytes(sum_of[:8], "little"), int.from_bytes(sum_of[8:], "little")


def _suspicious(raw: Raw, where: str, size: tuple[int, int], image: U8) -> int:
    flags = 0
    if int(image.max()) - int(image.min()) < 2:
        flags |= BLANK
    if max(size) > 5 * min(size):
        flags |= LONG
    if min(size) < 8:
        flags |= TINY
    if isinstance(raw, bytes):
        ending = Path(where).suffix.lower()
        known = any(ending in endings for endings in ENDINGS.values())
        right = [e for magic, e in ENDINGS.items() if raw.startswith(magic)]
        if known and right and ending not in right[0]:
            flags |= MISNAMED
    return flags


class Frames:
    """Rows to pixels. Pickles small: a worker opens the same files for itself."""

    def __init__(
        self,
        folder: Path | None,
        source: Source,
        where: Strings,
        pixels: Pixels,
        layers: Sequence[Layer],
    ) -> None:
        self.folder = folder  # None: nothing is stored, every read decodes
        self.source = source
        self.where = where
        self.pixels = pixels
        self.layers = tuple(layers)

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_pool")}
        if self.folder is not None:
            state["source"] = state["where"] = None
        return state

    def read(self, rows: NDArray[np.int64]) -> tuple[U8, dict[str, NDArray[Any]]]:
        """Stored images (B, H, W, 3) and dense targets by task, copied out."""
        if self.folder is not None:
            maps = self._maps
            images = maps["images"][rows]
            return images, {x.task.name: maps[f"target.{x.task.name}"][rows] for x in self.layers}
        looked = list(self._pool.map(self._decode, rows.tolist()))
        images = np.stack([arrays["images"] for arrays in looked])
        targets = {
            x.task.name: np.stack([arrays[f"target.{x.task.name}"] for arrays in looked])
            for x in self.layers
        }
        return images, targets

    def _decode(self, row: int) -> dict[str, NDArray[Any]]:
        looked = read_one(self.source, self.where[row], self.pixels, self.layers)
        if looked.why:
            raise Failed(
                f"{self.where[row]} was readable and is no more: {looked.why}; next: put it back, "
                "or start again to look at all images anew"
            )
        return looked.arrays

    @cached_property
    def _maps(self) -> dict[str, NDArray[Any]]:
        assert self.folder is not None
        height, width = self.pixels.stored
        maps = {"images": np.memmap(self.folder / "images.bin", np.uint8, "r")}
        found = {"images": maps["images"].reshape(-1, height, width, 3)}
        for layer in self.layers:
            name = f"target.{layer.task.name}"
            flat = np.memmap(self.folder / f"{name}.bin", layer.dtype, "r")
            found[name] = flat.reshape(-1, height, width, *layer.channels)
        return {name: np.asarray(array) for name, array in found.items()}

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(4)
