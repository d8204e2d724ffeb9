"""The stored images and targets of a source, by row: from the cache, or straight from its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.duplicates import THUMB, thumbnails
from onetrunk.data.index import Strings
from onetrunk.data.pixels import U8, BadImage, Pixels, decode
from onetrunk.data.sources import Source
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
KNOWN = frozenset(ending for endings in ENDINGS.values() for ending in endings)


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
    """What came of reading one image: its arrays, or the reason why there are none."""

    status: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)  # height, width as it is seen
    digest: tuple[int, int] = (0, 0)
    flags: int = 0
    why: str = ""


def read_one(source: Source, where: str, pixels: Pixels, layers: Sequence[Layer]) -> Looked:
    """Read, decode and fit one image and its targets."""
    try:
        raw = source.image(where)
        if isinstance(raw, str | os.PathLike):
            raw = _file(Path(raw))
        picture = decode(raw)
        size = (picture.height, picture.width)
        arrays = {"images": pixels.place(picture)}
        arrays |= _targets(source, where, size, pixels, layers)
        return Looked(GOOD, arrays, size, _digest(raw), _suspicious(raw, where, size))
    except BadImage as error:
        return Looked(BAD, why=str(error))
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Looked(UNREADABLE, why=why)


def _file(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise BadImage(f"a file of {size:,} bytes, over the limit of {MAX_BYTES:,}")
        return file.readall()


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
        with np.errstate(over="ignore"):  # beyond single precision is as unknown as infinity
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
    if target.dtype.kind not in "fui":
        raise BadImage(f"its {name} holds {target.dtype}, expected numbers")
    target = target.astype(np.float32)
    target = np.where(np.isfinite(target), target, np.float32(0))
    if kind == "depth":
        if target.min() < 0:
            raise BadImage(f"its {name} is negative ({target.min():.3g} metres)")
        return target
    length = np.linalg.norm(target, axis=-1, keepdims=True)
    if ((length > 0.01) & (np.abs(length - 1) > 0.1)).any():
        raise BadImage(f"its {name} are no unit vectors")
    return np.where(length > 0.01, target / np.maximum(length, 0.01), 0.0)


def _digest(raw: bytes | Image.Image | NDArray[Any]) -> tuple[int, int]:
    """128 bits of the image's content: its file's bytes, or its pixels where there is no file."""
    if isinstance(raw, Image.Image):
        content = f"{raw.mode} {raw.size}".encode() + raw.tobytes()
    elif isinstance(raw, np.ndarray):
        content = f"{raw.dtype} {raw.shape}".encode() + np.ascontiguousarray(raw).tobytes()
    else:
        content = raw
    sum_of = hashlib.sha256(content).digest()[:16]  # processors have instructions for it
    return int.from_bytes(sum_of[:8], "little"), int.from_bytes(sum_of[8:], "little")


def _suspicious(raw: object, where: str, size: tuple[int, int]) -> int:
    flags = 0
    if max(size) > 5 * min(size):
        flags |= LONG
    if min(size) < 8:
        flags |= TINY
    if isinstance(raw, bytes):
        ending = os.path.splitext(where)[1].lower()
        right = [e for magic, e in ENDINGS.items() if raw.startswith(magic)]
        if right and ending in KNOWN and ending not in right[0]:
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
        self._threads: tuple[int, ThreadPoolExecutor] | None = None  # a process's id, and its own

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k != "_maps"} | {"_threads": None}
        if self.folder is not None:
            state["source"] = state["where"] = None
        return state

    def read(self, rows: NDArray[np.int64]) -> tuple[U8, dict[str, NDArray[Any]]]:
        """Stored images (B, H, W, 3) and dense targets by task, copied out."""
        if self.folder is not None:
            maps = self._maps
            images = maps["images"][rows]
            return images, {x.task.name: maps[f"target.{x.task.name}"][rows] for x in self.layers}
        looked = list(self._pool().map(self._decode, rows.tolist()))
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
                f"{self.where[row]} was readable and is no more: {looked.why}; try: put it back, "
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

    def _pool(self) -> ThreadPoolExecutor:
        """Threads of this process: those of a parent do not live on in its fork."""
        threads = self._threads
        if threads is None or threads[0] != os.getpid():
            threads = self._threads = (os.getpid(), ThreadPoolExecutor(4))
        return threads[1]


SCAN = np.dtype(
    [
        ("status", "u1"),
        ("flags", "u1"),
        ("height", "<u4"),  # of the image as it is seen, after the EXIF turn
        ("width", "<u4"),
        ("digest", "<u8", 2),
        ("mean", "<f4", 3),  # of the stored pixels, 0…1, by channel
        ("square", "<f4", 3),  # mean of their squares
        ("thumb", "u1", (THUMB, THUMB)),
    ]
)
BLOCK = 2**22  # values of images that are worked on as floats at once


@dataclass
class Part:
    """Consecutive images after they were looked at: records, arrays by name, reasons by place."""

    scan: NDArray[np.void]
    arrays: dict[str, NDArray[Any]]  # (images, …) each; zeros where one cannot be read
    reasons: dict[int, str]


def gather(looked: Sequence[Looked]) -> Part:
    """What was seen of some images, as arrays."""
    scan = np.zeros(len(looked), SCAN)
    good = [i for i, one in enumerate(looked) if one.status == GOOD]
    for i, one in enumerate(looked):
        scan[i]["status"], scan[i]["flags"], scan[i]["digest"] = one.status, one.flags, one.digest
        scan[i]["height"], scan[i]["width"] = one.size
    arrays: dict[str, NDArray[Any]] = {}
    for name, like in (looked[good[0]].arrays if good else {}).items():
        empty = np.zeros_like(like)
        arrays[name] = np.stack([one.arrays.get(name, empty) for one in looked])
    if good:
        images = arrays["images"]
        step = max(1, BLOCK // images[0].size)
        for start in range(0, len(looked), step):
            rows = slice(start, start + step)
            part = images[rows]
            scan["mean"][rows], scan["square"][rows] = stats(part)
            scan["thumb"][rows] = thumbnails(part)
            flat = part.reshape(len(part), -1)
            # (an image that cannot be read is all zeros here; its status says what it is)
            scan["flags"][rows] |= np.where(flat.max(1) - flat.min(1) < 2, BLANK, 0).astype("u1")
    return Part(scan, arrays, {i: one.why for i, one in enumerate(looked) if one.why})


def stats(images_BHW3: U8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the values in 0…1 and of their squares, by image and channel.

    Whole rows are added up, as integers: a sum over interleaved channels is ten times slower.
    """
    count, height, width = images_BHW3.shape[:3]
    rows = images_BHW3.reshape(count, height, width * 3).astype(np.uint16)
    sums = [rows.sum(1, dtype=np.uint32), np.square(rows).sum(1, dtype=np.uint64)]
    by_channel = [s.reshape(count, width, 3).sum(1) / (height * width) for s in sums]
    return by_channel[0] / 255.0, by_channel[1] / 255.0**2


def read_records(folder: Path) -> NDArray[Any]:
    """The records that a folder of the cache holds, memory-mapped."""
    return np.memmap(folder / "scan.bin", SCAN, "r")


def read_reasons(folder: Path) -> dict[int, str]:
    """Why a row is bad; the newest line counts, and only for rows that are bad now."""
    try:
        lines = (folder / "bad.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    status = read_records(folder)["status"]
    found: dict[int, str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # a line cut by a kill: its row has no record either, and was redone
            continue
        if status[entry["row"]] in (BAD, UNREADABLE):
            found[entry["row"]] = entry["why"]
    return dict(sorted(found.items()))
