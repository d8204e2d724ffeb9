"""Small sources for the tests, as a user would write one."""

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
    """Noise, (H, W, 3): no two are alike, and every pixel tells its place."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file's bytes."""
    file = io.BytesIO()
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    made.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings one row of nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@dataclass
class Fake:
    """A source in memory: its items, its images by place, its targets by (place, task)."""

    tasks: tuple[Task, ...]
    listed: Sequence[Item]
    images: Mapping[str, Raw | Exception] = field(default_factory=dict)
    targets: Mapping[tuple[str, str], Array | Exception] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)  # every place that was read, in order
    notes: list[str] = field(default_factory=list)

    def items(self) -> Iterator[Item]:
        return iter(self.listed)

    def image(self, where: str) -> Raw:
        self.reads.append(where)
        found = self.images[where] if where in self.images else picture(int(where))
        if isinstance(found, Exception):
            raise found
        return found

    def target(self, where: str, task: str) -> Array | None:
        found = self.targets.get((where, task))
        if isinstance(found, Exception):
            raise found
        return found


CLASSIFY = (Task("classify", "classify"),)


def labelled(
    count: int, classes: Sequence[str] = ("a", "b"), splits: Sequence[str | None] = ("train",)
) -> list[Item]:
    """Items 0 … count-1; class and split go round, so that every split has every class."""
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
    """A classification source of 12×12 noise."""
    return Fake(CLASSIFY, labelled(count, classes, splits), **more)


@dataclass
class Files:
    """Every file below a folder is an image, its folder's name its class."""

    root: Path
    log: Path | None = None  # a line for every image that is read, also by other processes
    tasks: tuple[Task, ...] = CLASSIFY

    def items(self) -> Iterator[Item]:
        for folder, _, names in sorted(os.walk(self.root)):
            for name in sorted(names):
                path = Path(folder, name)
                seen = path.lstat()
                stamp = f"{seen.st_size}-{seen.st_mtime_ns}"
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
    """Images with class maps, depth and normals that all differ from pixel to pixel."""
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
    """A class map, a depth map and a map of normals, all noise."""
    rng = np.random.default_rng([seed, 7])
    normals = rng.normal(size=(height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return {
        "segment": rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width)),
        "depth": rng.uniform(0.5, 9.0, (height, width)).astype(np.float32),
        "normals": normals.astype(np.float32),
    }
