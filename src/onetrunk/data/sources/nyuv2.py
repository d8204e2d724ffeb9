"""`nyuv2:PATH`: indoor scenes with 13 classes, depth in metres and normals, as NPY arrays.

The preprocessed archive of Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention",
CVPR 2019, made from Silberman et al.'s NYU Depth v2 (288×384; 795 training images, 654 for
evaluation): PATH/{train,val}/{image,label,depth,normal}/N.npy; label -1 is not labelled.

The archive does not document the directions of the axes of its normals. They are measured with its
depth, and the normals are converted to x right, y up, z to the viewer; a note reports the measured
directions. `nyuv2:PATH?normals=left-up-viewer` sets them instead.

The measurement: with a pinhole camera the pixels of a depth map are points in space, neighbouring
points span a surface, and its normal faces the viewer. For each axis, the cosine between measured
and stored values is near 1 if the axis agrees and near -1 if it is reversed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.labels import fixed_classes
from onetrunk.data.files.paths import existing_folder
from onetrunk.data.files.targets import as_bad_image, read_npy, read_target
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import SourceOptions
from onetrunk.data.sources._scenes import Scenes, parse_query
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

F64 = NDArray[np.float64]
CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa"),
    *("table", "tv", "wall", "window"),
)
PLACES: dict[Kind, str] = {"segment": "label", "depth": "depth", "normals": "normal"}
AXES = (
    ("right", "left"),
    ("up", "down"),
    ("viewer", "scene"),
)  # the converted direction, and its reverse
FACINGS = ["-".join(words) for words in itertools.product(*AXES)]
MEASURED = 16  # images that the axes are measured on
MIN_COSINE = 0.2  # for a clear sign
MIN_LENGTH = 0.5  # shorter normals are unknown; resizing shortens the others
FOCAL = 0.9  # of the image's width; signs do not need the true focal length
STEPS = 96  # per width, between the points of a surface: distances of several pixels reduce noise
EDGE = 0.05  # neighbours whose depths differ by more, relatively, are on two surfaces


class NYUv2(Scenes):
    """The archive, with its normals converted to x right, y up, z to the viewer."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        path, given = parse_query(rest, {"normals": FACINGS}, "nyuv2")
        folder = existing_folder(options.base, path, "nyuv2", "unpack it")
        self._signs: NDArray[np.float32] = np.ones(3, np.float32)
        super().__init__(f"nyuv2:{rest}", folder, options, PLACES)
        self.tasks = tuple(_described(self.name, task) for task in self.tasks)
        normals = next((task for task in self.tasks if task.kind == "normals"), None)
        if normals is not None:
            facing = given.get("normals") or self._measured(normals)
            words = facing.split("-")
            reversed_ = [word == axis[1] for word, axis in zip(words, AXES, strict=True)]
            self._signs = np.where(reversed_, -1, 1).astype(np.float32)
            self.mark = f"normals={facing}"

    def read(self, task: Task, path: Path) -> NDArray[Any]:
        """Read a target; normals are converted, and have length 1."""
        if task.kind != "normals":
            return read_target(task, path)
        with as_bad_image(task.name):
            normals = read_npy(path).astype(np.float32)
            if normals.ndim != 3 or normals.shape[2] != 3:
                raise BadImage(f"expected normals (H, W, 3), got {normals.shape}")
            normals = np.nan_to_num(normals, nan=0.0, posinf=9.0, neginf=-9.0)
            length = np.linalg.norm(normals, axis=2, keepdims=True)
            if (length > 1.1).any():
                raise BadImage("expected unit vectors (0 for unknown)")
            return np.where(length > MIN_LENGTH, self._signs * normals / length.clip(MIN_LENGTH), 0)

    def _measured(self, task: Task) -> str:
        """Return the axes of the stored normals in words, measured against depth."""
        cosines = agreement(self._pairs(task))
        if min(abs(cosines)) < MIN_COSINE:
            shown = ", ".join(f"{a} {c:.2f}" for a, c in zip("xyz", cosines, strict=True))
            raise BadInput(
                f"{self.name}: cannot measure which way the axes of its normals point",
                got=f"cosines {shown}",
                available=FACINGS,
                try_="?normals=right-up-viewer (x-y-z) after the path",
            )
        words = [axis[int(cosine < 0)] for axis, cosine in zip(AXES, cosines, strict=True)]
        self.notes.append(
            f"normals as stored: x {words[0]}, y {words[1]}, z to the {words[2]}, measured against "
            f"its depth (cosines {', '.join(f'{c:.2f}' for c in cosines)}); turned to x right, "
            "y up, z to the viewer"
        )
        return "-".join(words)

    def _pairs(self, task: Task) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield depth and normals of some training images, spread over all."""
        numbers = self._numbers["train"]
        depth = Task("depth", "depth", column=PLACES["depth"])
        for at in np.linspace(0, len(numbers) - 1, min(MEASURED, len(numbers))).astype(int):
            paths = [self._root.find(self._file("train", t, numbers[at])) for t in (depth, task)]
            try:
                if all(path is not None and path.is_file() for path in paths):
                    metres, normals = (
                        self.read(t, Path(str(p)))
                        for t, p in zip((depth, task), paths, strict=True)
                    )
                    if metres.shape == normals.shape[:2]:
                        yield metres, normals
            except BadImage:  # reported when it is decoded
                continue


SOURCE = NYUv2


def _described(name: str, task: Task) -> Task:
    """Return the task with its classes or its unit."""
    if task.kind == "segment":
        return fixed_classes(name, task, CLASSES)
    return Task(task.name, task.kind, column=task.column, unit="m" if task.kind == "depth" else "")


def agreement(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> F64:
    """Return the cosines of x, y, z between measured and stored normals over all known pixels.

    Args:
        pairs: (depth HW, stored normals HW3) of some images.
    """
    products, measured2, stored2 = np.zeros(3), np.zeros(3), np.zeros(3)
    for depth_HW, stored_HW3 in pairs:
        measured, known = surface_normals(depth_HW)
        stored = stored_HW3[: len(measured), : measured.shape[1]].astype(np.float64)
        known &= (stored * stored).sum(-1) > 0.25
        a, b = measured[known], stored[known]
        products += (a * b).sum(0)
        measured2 += (a * a).sum(0)
        stored2 += (b * b).sum(0)
    cosines: F64 = products / np.maximum(np.sqrt(measured2 * stored2), 1e-12)
    return cosines


def surface_normals(depth_HW: NDArray[np.float32]) -> tuple[F64, NDArray[np.bool_]]:
    """Return normals (H-s, W-s, 3) of the surfaces through a depth map's points, and if known."""
    z = depth_HW.astype(np.float64)
    height, width = z.shape
    s = max(1, round(width / STEPS))
    across = (np.arange(width) + 0.5 - width / 2) / (FOCAL * width)
    up = -(np.arange(height) + 0.5 - height / 2) / (FOCAL * width)
    points = np.stack([z * across, z * up[:, None], -z], -1)
    here = points[:-s, :-s]
    right, below = points[:-s, s:] - here, points[s:, :-s] - here
    normal = np.cross(right, below)
    normal *= np.where((normal * here).sum(-1) > 0, -1, 1)[..., None]  # towards the viewer
    length = np.linalg.norm(normal, axis=-1)
    near = z[:-s, :-s]
    known = (near > 0) & (length > 0)
    for other in (z[:-s, s:], z[s:, :-s]):
        known &= (other > 0) & (np.abs(other - near) < EDGE * near)
    return normal / np.where(length > 0, length, 1)[..., None], known
