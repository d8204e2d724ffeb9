"""The stored images and targets of a source, read from the cache or from the source.

`read_image` reads and fits one image with its targets, `summarize` computes the record that the
cache keeps of each image (size, digest, statistics, thumbnail), and `Frames` reads rows of images
for training and evaluation.
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
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
from onetrunk.data.user_code import code_of
from onetrunk.errors import Failed, OnetrunkError

# UNREADABLE: for a reason outside of the image (disk, memory), so the next run tries again
TODO, GOOD, BAD, UNREADABLE = range(4)
BLANK, MISNAMED, LONG, TINY = 1, 2, 4, 8  # flags of images that are readable but suspicious
MAX_BYTES = 512 * 2**20  # of one image file
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
RECORD = np.dtype(  # of one image, in the cache
    [
        ("status", "u1"),
        ("flags", "u1"),
        ("height", "<u4"),  # of the upright image, after the EXIF turn
        ("width", "<u4"),
        ("digest", "<u8", 2),
        ("mean", "<f4", 3),  # of the stored pixels, 0…1, by channel
        ("square", "<f4", 3),  # mean of their squares
        ("thumb", "u1", (THUMB, THUMB)),
    ]
)
BLOCK = 2**22  # values of images that are processed together


@dataclass(frozen=True)
class Layer:
    """How the targets of a dense task are stored.

    Attributes:
        empty: The value of a pixel without a label.
    """

    task: Task
    dtype: str
    channels: tuple[int, ...]
    empty: float

    def bytes(self, stored: tuple[int, int]) -> int:
        """Return the size of one image's target in bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod((*stored, *self.channels)))


def layers_of(tasks: Sequence[Task]) -> tuple[Layer, ...]:
    """Return the layers of the dense tasks. Half precision stores a normal to 0.02°."""
    how: dict[str, tuple[str, tuple[int, ...], float]] = {
        "segment": ("u1", (), NO_PIXEL),
        "depth": ("<f4", (), 0.0),
        "normals": ("<f2", (3,), 0.0),
    }
    return tuple(Layer(task, *how[task.kind]) for task in tasks if task.dense)


@dataclass
class ReadImage:
    """The result of reading one image: its arrays, or the reason why there are none.

    Attributes:
        size: Height and width of the upright image.
        digest: 128 bits of its content.
    """

    status: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    digest: tuple[int, int] = (0, 0)
    flags: int = 0
    reason: str = ""


def read_image(source: Source, where: str, pixels: Pixels, layers: Sequence[Layer]) -> ReadImage:
    """Read, decode and fit one image and its targets."""
    try:
        raw = source.image(where)
        if isinstance(raw, str | os.PathLike):
            raw = _read_file(Path(raw))
        picture = decode(raw)
        size = (picture.height, picture.width)
        arrays = {"images": pixels.place(picture)}
        arrays |= _targets(source, where, size, pixels, layers)
        return ReadImage(GOOD, arrays, size, _digest(raw), _suspicious(raw, where, size))
    except BadImage as error:
        return ReadImage(BAD, reason=str(error))
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ReadImage(UNREADABLE, reason=reason)
    except OnetrunkError:
        raise
    except Exception as error:
        if not code_of(source):
            raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise Failed(
            f"image {where}: its source raised {type(error).__name__} in "
            f"{os.path.basename(line.filename)}, line {line.lineno}",
            got=str(error),
            try_="correct it; for one broken image it may raise onetrunk.data.pixels.BadImage",
        ) from error


def _read_file(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise BadImage(f"a file of {size:,} bytes, over the limit of {MAX_BYTES:,}")
        return file.readall()


def _targets(
    source: Source, where: str, size: tuple[int, int], pixels: Pixels, layers: Sequence[Layer]
) -> dict[str, NDArray[Any]]:
    """Return the dense targets at the stored size, fitted exactly as the image is."""
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
        with np.errstate(over="ignore"):  # larger numbers become infinite, which is unknown
            target = _checked(layer, target)
        placed = pixels.place_target(target, layer.empty)
        arrays[f"target.{name}"] = np.ascontiguousarray(placed, layer.dtype)
    return arrays


def _checked(layer: Layer, target: NDArray[Any]) -> NDArray[Any]:
    """Return a target, or raise BadImage if a value is not valid."""
    name, kind = layer.task.name, layer.task.kind
    if kind == "segment":
        if target.dtype.kind not in "ui":
            raise BadImage(f"its {name} holds {target.dtype}, expected integers")
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
        raise BadImage(f"its {name} are not unit vectors")
    return np.where(length > 0.01, target / np.maximum(length, 0.01), 0.0)


def _digest(raw: bytes | Image.Image | NDArray[Any]) -> tuple[int, int]:
    """Return 128 bits of an image's content: of its file, or of its pixels if it has none."""
    if isinstance(raw, Image.Image):
        content = f"{raw.mode} {raw.size}".encode() + raw.tobytes()
    elif isinstance(raw, np.ndarray):
        content = f"{raw.dtype} {raw.shape}".encode() + np.ascontiguousarray(raw).tobytes()
    else:
        content = raw
    digest = hashlib.sha256(content).digest()[:16]  # processors have instructions for SHA-256
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _suspicious(raw: object, where: str, size: tuple[int, int]) -> int:
    flags = 0
    if max(size) > 5 * min(size):
        flags |= LONG
    if min(size) < 8:
        flags |= TINY
    if isinstance(raw, bytes):
        ending = os.path.splitext(where)[1].lower()
        right = [endings for magic, endings in ENDINGS.items() if raw.startswith(magic)]
        if right and ending in KNOWN and ending not in right[0]:
            flags |= MISNAMED
    return flags


@dataclass
class Part:
    """Some consecutive images after they were read.

    Attributes:
        records: A RECORD for each image.
        arrays: By name, (images, …) each; zeros for an image that cannot be read.
        reasons: Why an image cannot be read, by its position.
    """

    records: NDArray[np.void]
    arrays: dict[str, NDArray[Any]]
    reasons: dict[int, str]


def summarize(images: Sequence[ReadImage]) -> Part:
    """Compute the records of several images, three times faster than one by one."""
    records = np.zeros(len(images), RECORD)
    good = [i for i, image in enumerate(images) if image.status == GOOD]
    for i, image in enumerate(images):
        record = records[i]
        record["status"], record["flags"] = image.status, image.flags
        record["digest"], (record["height"], record["width"]) = image.digest, image.size
    arrays: dict[str, NDArray[Any]] = {}
    for name, like in (images[good[0]].arrays if good else {}).items():
        empty = np.zeros_like(like)
        arrays[name] = np.stack([image.arrays.get(name, empty) for image in images])
    if good:
        pixels = arrays["images"]
        step = max(1, BLOCK // pixels[0].size)
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            block = pixels[rows]
            records["mean"][rows], records["square"][rows] = stats(block)
            records["thumb"][rows] = thumbnails(block)
            flat = block.reshape(len(block), -1)
            # an unreadable image is all zeros here, so it gets this flag too, but another status
            blank = np.where(flat.max(1) - flat.min(1) < 2, BLANK, 0)
            records["flags"][rows] |= blank.astype("u1")
    return Part(
        records, arrays, {i: image.reason for i, image in enumerate(images) if image.reason}
    )


def stats(images_BHW3: U8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of the values in 0…1 and of their squares, by image and channel.

    Rows are added up as integers: a sum over interleaved channels is ten times slower.
    """
    count, height, width = images_BHW3.shape[:3]
    rows = images_BHW3.reshape(count, height, width * 3).astype(np.uint16)
    sums = [rows.sum(1, dtype=np.uint32), np.square(rows).sum(1, dtype=np.uint64)]
    by_channel = [s.reshape(count, width, 3).sum(1) / (height * width) for s in sums]
    return by_channel[0] / 255.0, by_channel[1] / 255.0**2


def read_records(folder: Path) -> NDArray[Any]:
    """Return the records in a folder of the cache, memory-mapped."""
    return np.memmap(folder / "records.bin", RECORD, "r")


def read_reasons(folder: Path) -> dict[int, str]:
    """Return why rows of a folder of the cache cannot be read; later lines replace earlier ones."""
    try:
        lines = (folder / "bad.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    status = read_records(folder)["status"]
    reasons: dict[int, str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # an incomplete line of a killed process; its row was decoded again
            continue
        if status[entry["row"]] in (BAD, UNREADABLE):
            reasons[entry["row"]] = entry["reason"]
    return dict(sorted(reasons.items()))


class Frames:
    """Reads rows of stored images. Pickles are small, because data workers open the files again.

    Args:
        folder: The folder of the cache; None to decode at every read.
        used: An object that marks the folder as in use while these frames exist.
    """

    def __init__(
        self,
        folder: Path | None,
        source: Source,
        where: Strings,
        pixels: Pixels,
        layers: Sequence[Layer],
        used: object = None,
    ) -> None:
        self.folder = folder
        self.source = source
        self.where = where
        self.pixels = pixels
        self.layers = tuple(layers)
        self._used = used
        self._threads: tuple[int, ThreadPoolExecutor] | None = None  # process id, its threads

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k != "_maps"}
        state |= {"_threads": None, "_used": None}
        if self.folder is not None:
            state["source"] = state["where"] = None
        return state

    def read(self, rows: NDArray[np.int64]) -> tuple[U8, dict[str, NDArray[Any]]]:
        """Return stored images (B, H, W, 3) and dense targets by task, as copies."""
        if self.folder is not None:
            maps = self._maps
            images = maps["images"][rows]
            return images, {x.task.name: maps[f"target.{x.task.name}"][rows] for x in self.layers}
        decoded = list(self._pool().map(self._decode, rows.tolist()))
        images = np.stack([arrays["images"] for arrays in decoded])
        targets = {
            x.task.name: np.stack([arrays[f"target.{x.task.name}"] for arrays in decoded])
            for x in self.layers
        }
        return images, targets

    def _decode(self, row: int) -> dict[str, NDArray[Any]]:
        image = read_image(self.source, self.where[row], self.pixels, self.layers)
        if image.reason:
            raise Failed(
                f"{self.where[row]} can no longer be read",
                got=image.reason,
                try_="restore it, or start again to list all images again",
            )
        return image.arrays

    @cached_property
    def _maps(self) -> dict[str, NDArray[Any]]:
        if self.folder is None:
            raise RuntimeError("only a folder of the cache can be mapped")
        height, width = self.pixels.stored
        images = np.memmap(self.folder / "images.bin", np.uint8, "r")
        maps: dict[str, NDArray[Any]] = {"images": images.reshape(-1, height, width, 3)}
        for layer in self.layers:
            name = f"target.{layer.task.name}"
            flat = np.memmap(self.folder / f"{name}.bin", layer.dtype, "r")
            maps[name] = flat.reshape(-1, height, width, *layer.channels)
        return {name: np.asarray(array) for name, array in maps.items()}

    def _pool(self) -> ThreadPoolExecutor:
        """Return the threads of this process; a fork does not inherit those of its parent."""
        threads = self._threads
        if threads is None or threads[0] != os.getpid():
            threads = self._threads = (os.getpid(), ThreadPoolExecutor(4))
        return threads[1]
