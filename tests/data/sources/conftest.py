"""Small files in the real formats: a builder for each source."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onetrunk.data.sources import Source, SourceOptions, open_source
from onetrunk.data.task import Task, read_tasks


def _pixels(seed: int, height: int = 9, width: int = 7) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Write an image file in the format of its ending."""

    def write(path: Path, seed: int = 0, **size: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_pixels(seed, **size)).save(path)
        return path

    return write


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """An image as bytes."""

    def make(seed: int = 0, kind: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.fromarray(_pixels(seed)).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Source]:
    """Open a source relative to the test's folder."""

    def open_(name: str, tasks: Any = None, **options: Any) -> Source:
        given: tuple[Task, ...] | None = None if tasks is None else read_tasks(tasks)
        return open_source(name, SourceOptions(tmp_path, given, **options))

    return open_


@pytest.fixture
def built(tmp_path: Path, photo: Any, encoded: Any) -> Callable[[str], str]:
    """Build a small source of a kind in the test's folder, and return its name."""
    return lambda kind: BUILD[kind](tmp_path, photo, encoded)


def build_folder(root: Path, photo: Any, _: Any) -> str:
    for split, n in (("train", 3), ("validation", 1), ("test", 2)):
        for c, name in enumerate(("cat", "dog")):
            for i in range(n):
                photo(root / "photos" / split / name / f"{i}.png", seed=10 * c + i)
    return "folder:photos"


def build_unlabelled(root: Path, photo: Any, _: Any) -> str:
    for i in range(3):
        photo(root / f"heap/{i % 2}/{i}.png", i)
    return "unlabelled:heap"


def build_dense(root: Path, photo: Any, _: Any) -> str:
    for i in range(4):
        photo(root / "rooms/images" / f"{i}.jpg", seed=i)
        if i == 3:
            continue  # not labelled
        for kind in ("segment", "depth", "normals"):
            (root / "rooms" / kind).mkdir(exist_ok=True)
        labels = np.full((9, 7), i, np.uint8)
        labels[0, 0] = 255
        Image.fromarray(labels).save(root / "rooms/segment" / f"{i}.png")
        np.save(root / "rooms/depth" / f"{i}.npy", np.full((9, 7), 1.5 + i, np.float32))
        normals = np.zeros((9, 7, 3), np.float32)
        normals[..., 2] = 1
        np.save(root / "rooms/normals" / f"{i}.npy", normals)
    (root / "rooms/segment/classes.txt").write_text("wall\nfloor\nceiling\n")
    return "folder:rooms"


def build_table(root: Path, photo: Any, _: Any) -> str:
    lines = ["path,label,split"]
    for i in range(6):
        photo(root / "shop" / f"{i}.png", seed=i)
        lines.append(f"shop/{i}.png,{'shoe' if i % 2 else 'hat'},{'train' if i < 4 else 'test'}")
    (root / "shop.csv").write_text("\n".join(lines))
    return "table:shop.csv"


def build_hf(root: Path, _: Any, encoded: Any) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["hat", "shoe"])
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": encoded(i), "path": None} for i in range(n)],
                "label": [i % 2 for i in range(n)],
            },
            features=features,
        )
        for split, n in (("train", 4), ("validation", 2))
    }
    datasets.DatasetDict(parts).save_to_disk(str(root / "disk"))
    return "hf:disk"


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """An IDX file as MNIST's, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    with open(path, "wb") as file:
        file.write(head + array.astype(np.uint8).tobytes())
    with gzip.open(f"{path}.gz", "wb") as zipped:
        zipped.write(head + array.astype(np.uint8).tobytes())


def build_torchvision(root: Path, *_: Any) -> str:
    raw = root / "data/MNIST/raw"
    for split, n in (("train", 5), ("t10k", 3)):
        idx(
            raw / f"{split}-images-idx3-ubyte",
            np.stack([_pixels(i, 28, 28)[..., 0] for i in range(n)]),
        )
        idx(raw / f"{split}-labels-idx1-ubyte", np.arange(n) % 10)
    return "torchvision:MNIST"


def build_webdataset(root: Path, _: Any, encoded: Any) -> str:
    webdataset = pytest.importorskip("webdataset")
    (root / "shards").mkdir()
    for s, split in enumerate(("train-0000", "train-0001", "val-0000")):
        with webdataset.TarWriter(str(root / "shards" / f"shop-{split}.tar")) as shard:
            for i in range(3):
                shard.write(
                    {
                        "__key__": f"{s}{i:03d}",
                        "png": encoded(3 * s + i),
                        "cls": i % 2,
                        "json": {"material": "wool" if i else "felt", "tags": ["a", "b"][:i]},
                    }
                )
    return "webdataset:shards/shop-{train-0000,train-0001,val-0000}.tar"


def coco_document(names: list[str]) -> dict[str, Any]:
    """Instances as COCO writes them: a polygon, an uncompressed and a compressed mask, a crowd."""
    square = [1, 1, 5, 1, 5, 5, 1, 5]
    images = [
        {"id": 10 + i, "file_name": name, "height": 9, "width": 7} for i, name in enumerate(names)
    ]
    rows = [
        {"id": 1, "image_id": 10, "category_id": 18, "iscrowd": 0, "area": 16,
         "segmentation": [square], "bbox": [1, 1, 4, 4]},
        {"id": 2, "image_id": 10, "category_id": 3, "iscrowd": 0, "area": 4,
         "segmentation": {"size": [9, 7], "counts": [20, 2, 7, 2, 32]}, "bbox": [2, 2, 2, 2]},
        {"id": 3, "image_id": 10, "category_id": 3, "iscrowd": 1, "area": 9,
         "segmentation": {"size": [9, 7], "counts": [54, 9]}, "bbox": [6, 0, 1, 9]},
    ]  # fmt: skip
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    return {"images": images, "annotations": rows, "categories": categories}


def build_coco(root: Path, photo: Any, _: Any) -> str:
    (root / "coco/annotations").mkdir(parents=True)
    for split, n in (("train2017", 3), ("val2017", 2)):
        names = [f"{i:012d}.jpg" for i in range(n)]
        for i, name in enumerate(names):
            photo(root / "coco" / split / name, seed=i)
        document = json.dumps(coco_document(names))
        (root / "coco/annotations" / f"instances_{split}.json").write_text(document)
    return "coco:coco"


def build_decathlon(root: Path, photo: Any, _: Any) -> str:
    home = root / "decathlon"
    (home / "annotations").mkdir(parents=True)
    number = 0
    for split, n in (("train", 4), ("val", 2), ("test", 2)):
        images, rows = [], []
        for i in range(n):
            number += 1
            folder = "" if split == "test" else f"{i % 2 + 1:04d}/"
            name = f"data/dtd/{split}/{folder}{number:06d}.jpg"
            photo(home / name, seed=number)
            images.append({"id": number, "file_name": name, "width": 7, "height": 9})
            rows.append({"id": number, "image_id": number, "category_id": 200000001 + i % 2,
                         "iscrowd": 0, "area": 1, "bbox": []})  # fmt: skip
        document = {
            "images": images,
            "categories": [
                {"id": 200000002, "name": "dotted", "supercategory": ""},
                {"id": 200000001, "name": "banded", "supercategory": ""},
            ],
        }
        if split != "test":
            document["annotations"] = rows
        stem = f"dtd_{split}" + ("_stripped" if split == "test" else "")
        (home / "annotations" / f"{stem}.json").write_text(json.dumps(document))
    return "decathlon:decathlon/dtd"


def room(height: int, width: int, turn: float) -> tuple[Any, Any]:
    """Depth (H, W, 1) and normals of a box of a room, seen from inside by a camera of FOV 58°.

    x right, y up, z to the viewer; the camera looks along -z, turned by `turn` about y.
    """
    focal = 0.9 * width
    across = (np.arange(width) + 0.5 - width / 2) / focal
    up = -(np.arange(height) + 0.5 - height / 2) / focal
    rays = np.stack(np.broadcast_arrays(across, up[:, None], -1.0), -1)
    c, s = np.cos(turn), np.sin(turn)
    walls = [(1, 0, 0, -2.0), (-1, 0, 0, -1.5), (0, 1, 0, -1.4), (0, -1, 0, -1.2), (0, 0, 1, -5.0)]
    depth = np.full((height, width), np.inf)
    normals = np.zeros((height, width, 3))
    for x, y, z, d in walls:  # n·p = d, n into the room
        n = np.array([c * x + s * z, y, -s * x + c * z])
        facing = rays @ n
        far = np.where(facing < 0, d / np.where(facing < 0, facing, 1), np.inf)
        nearer = far < depth
        depth, normals[nearer] = np.where(nearer, far, depth), n
    return depth[..., None], normals


def build_nyuv2(
    root: Path,
    *_: Any,
    facing: tuple[int, int, int] = (1, 1, 1),
    size: tuple[int, int] = (72, 96),
) -> str:
    """As the archive, a quarter as large by default; normals stored with these signs."""
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            depth, normals = room(*size, 0.2 * (i - 1.5))
            rng = np.random.default_rng(i)
            label = rng.integers(-1, 13, size).astype(np.float64)
            for what, array in (
                ("image", rng.random((*size, 3))),
                ("label", label),
                ("depth", depth),
                ("normal", normals * facing),
            ):
                (root / "nyuv2" / split / what).mkdir(parents=True, exist_ok=True)
                np.save(root / "nyuv2" / split / what / f"{i}.npy", array)
    return "nyuv2:nyuv2"


def build_cityscapes(root: Path, *_: Any) -> str:
    """As the archive of 128×256, with both sets of classes."""
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            rng = np.random.default_rng(i)
            depth = rng.uniform(0, 0.4922, (128, 256, 1))
            depth[:9] = 0
            for what, array in (
                ("image", rng.random((128, 256, 3)).astype(np.float32)),
                ("label_7", rng.integers(-1, 7, (128, 256))),
                ("label_19", rng.integers(-1, 19, (128, 256))),
                ("depth", depth),
            ):
                (root / "cityscapes" / split / what).mkdir(parents=True, exist_ok=True)
                np.save(root / "cityscapes" / split / what / f"{i}.npy", array)
    return "cityscapes:cityscapes?classes=19&depth=disparity"


BUILD: dict[str, Callable[..., str]] = {
    "folder": build_folder,
    "unlabelled": build_unlabelled,
    "dense": build_dense,
    "table": build_table,
    "hf": build_hf,
    "torchvision": build_torchvision,
    "webdataset": build_webdataset,
    "coco": build_coco,
    "decathlon": build_decathlon,
    "nyuv2": build_nyuv2,
    "cityscapes": build_cityscapes,
}
