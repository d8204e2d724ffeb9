"""Small sources for tests, written as a user would write them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item
from onetrunk.data.task import Task

Array = np.ndarray[Any, Any]


def picture(seed: int, height: int = 12, width: int = 12) -> Array:
    """Return an image of noise, (H, W, 3), different for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    picture_ = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture_.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header has this size and whose content is one empty row."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@dataclass
class Fake:
    """A source in memory: its items, its images by `where`, its targets by (`where`, task).

    Attributes:
        reads: The `where` of every image that was read, in order.
    """

    tasks: tuple[Task, ...]
    listed: Sequence[Item]
    images: Mapping[str, Raw | Exception] = field(default_factory=dict)
    targets: Mapping[tuple[str, str], Array | Exception] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def items(self) -> Iterator[Item]:
        return iter(self.listed)

    def image(self, where: str) -> Raw:
        self.reads.append(where)
        image = self.images[where] if where in self.images else picture(int(where))
        if isinstance(image, Exception):
            raise image
        return image

    def target(self, where: str, task: str) -> Array | None:
        target = self.targets.get((where, task))
        if isinstance(target, Exception):
            raise target
        return target


CLASSIFY = (Task("classify", "classify"),)


def labelled(
    count: int, classes: Sequence[str] = ("a", "b"), splits: Sequence[str | None] = ("train",)
) -> list[Item]:
    """Return items 0 … count-1 with alternating classes and splits; every split has every class."""
    return [
        Item(
            f"{i:04}.png",
            str(i),
            f"stamp-{i}",
            split=splits[(i // len(classes)) % len(splits)],
            labels={"classify": classes[i % len(classes)]},
        )
        for i in range(count)
    ]


def small(
    count: int = 24,
    classes: Sequence[str] = ("a", "b"),
    splits: Sequence[str | None] = ("train", "train", "val", "test"),
    **more: Any,
) -> Fake:
    """Return a classification source of 12×12 noise."""
    return Fake(CLASSIFY, labelled(count, classes, splits), **more)


@dataclass
class Files:
    """A source of every file below a folder; the name of its folder is its class.

    Attributes:
        log: A file that gets a line for every image that is read, in any process.
    """

    root: Path
    log: Path | None = None
    tasks: tuple[Task, ...] = CLASSIFY

    def items(self) -> Iterator[Item]:
        for folder, _, names in sorted(os.walk(self.root)):
            for name in sorted(names):
                path = Path(folder, name)
                info = path.lstat()
                stamp = f"{info.st_size}-{info.st_mtime_ns}"
                key = path.relative_to(self.root).as_posix()
                yield Item(key, key, stamp, labels={"classify": path.parent.name})

    def image(self, where: str) -> Path:
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{where}\n")
        return self.root / where

    def target(self, where: str, task: str) -> None:
        return None


def dense_source(count: int = 12, height: int = 10, width: int = 14, **more: Any) -> Fake:
    """Return images with class maps, depth and normals of noise."""
    tasks = (
        Task("segment", "segment", ("wall", "floor", "item")),
        Task("depth", "depth"),
        Task("normals", "normals"),
    )
    split = ("train", "train", "val", "test")
    listed = [Item(f"{i:04}", str(i), f"s{i}", split=split[i % 4]) for i in range(count)]
    images = {str(i): picture(i, height, width) for i in range(count)}
    targets: dict[tuple[str, str], Array | Exception] = {}
    for i in range(count):
        targets |= {(str(i), name): t for name, t in dense_targets(i, height, width).items()}
    return Fake(tasks, listed, images, targets, **more)


def dense_targets(seed: int, height: int, width: int) -> dict[str, Array]:
    """Return a class map, a depth map and a map of normals, all noise."""
    rng = np.random.default_rng([seed, 7])
    normals = rng.normal(size=(height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return {
        "segment": rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width)),
        "depth": rng.uniform(0.5, 9.0, (height, width)).astype(np.float32),
        "normals": normals.astype(np.float32),
    }
