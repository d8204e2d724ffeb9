"""`nyuv2:PATH`: indoor scenes with 13 classes, depth in metres and normals, as NPY arrays.

The preprocessed archive of Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention",
CVPR 2019 (288×384; 795 images to train, 654 to evaluate), of Silberman et al.'s NYU Depth v2:
PATH/{train,val}/{image,label,depth,normal}/N.npy; label -1 is not labelled. The archive does not
say which way its normals' axes point: they are measured against its depth and turned to x right,
y up, z to the viewer, and what was found is said. `nyuv2:PATH?normals=left-up-viewer` says it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.files.targets import naming, read_npy, read_target
from onetrunk.data.pixels import BadImage
from onetrunk.data.sources import SourceOptions
from onetrunk.data.sources._scenes import Scenes, folder_of, options
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa"),
    *("table", "tv", "wall", "window"),
)
PLACES: dict[Kind, str] = {"segment": "label", "depth": "depth", "normals": "normal"}
AXES = (("right", "left"), ("up", "down"), ("viewer", "scene"))  # ours, and turned round
FACINGS = ["-".join(words) for words in itertools.product(*AXES)]
LOOKED = 16  # images that the axes are measured on
LEAST = 0.2  # agreement with depth that tells a sign
SHORT = 0.5  # a normal shorter than this is none; resizing shortens the others


class NYUv2(Scenes):
    """The archive, its normals turned to our axes."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        path, said = options(rest, {"normals": FACINGS}, "nyuv2")
        self._signs: NDArray[np.float32] = np.ones(3, np.float32)
        super().__init__(f"nyuv2:{rest}", folder_of(asked, path, "nyuv2"), asked, PLACES)
        self.tasks = tuple(_described(self.name, task) for task in self.tasks)
        normals = next((task for task in self.tasks if task.kind == "normals"), None)
        if normals is not None:
            facing = said.get("normals") or self._measured(normals)
            words = facing.split("-")
            turned = [word == axis[1] for word, axis in zip(words, AXES, strict=True)]
            self._signs = np.where(turned, -1, 1).astype(np.float32)
            self.mark = f"normals={facing}"

    def read(self, task: Task, path: Path) -> NDArray[Any]:
        """One target; normals in our axes, of length 1."""
        if task.kind != "normals":
            return read_target(task, path)
        with naming(task.name):
            normals = read_npy(path).astype(np.float32)
            if normals.ndim != 3 or normals.shape[2] != 3:
                raise BadImage(f"expected normals (H, W, 3), came {normals.shape}")
            normals = np.nan_to_num(normals, nan=0.0, posinf=9.0, neginf=-9.0)
            length = np.linalg.norm(normals, axis=2, keepdims=True)
            if (length > 1.1).any():
                raise BadImage("expected unit vectors (0 where unknown)")
            return np.where(length > SHORT, self._signs * normals / length.clip(SHORT), 0)

    def _measured(self, task: Task) -> str:
        """The axes as the archive's depth has them, in words."""
        found = agreement(self._pairs(task))
        if min(abs(found)) < LEAST:
            cosines = ", ".join(f"{a} {c:.2f}" for a, c in zip("xyz", found, strict=True))
            raise BadInput(
                f"{self.name}: neither words nor its depth say which way its normals point",
                got=f"agreement {cosines}",
                available=FACINGS,
                try_="say it as x-y-z: ?normals=right-up-viewer behind the path",
            )
        words = [axis[int(cosine < 0)] for axis, cosine in zip(AXES, found, strict=True)]
        self.notes.append(
            f"normals as stored: x {words[0]}, y {words[1]}, z to the {words[2]}, measured against "
            f"its depth (cosines {', '.join(f'{c:.2f}' for c in found)}); turned to x right, y up, "
            "z to the viewer"
        )
        return "-".join(words)

    def _pairs(self, task: Task) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Depth and normals of some training images, spread over all."""
        numbers = self._numbers["train"]
        depth = Task("depth", "depth", column=PLACES["depth"])
        for at in np.linspace(0, len(numbers) - 1, min(LOOKED, len(numbers))).astype(int):
            paths = [self._root.find(self._file("train", t, numbers[at])) for t in (depth, task)]
            try:
                if all(path is not None and path.is_file() for path in paths):
                    metres, normals = (
                        self.read(t, Path(str(p)))
                        for t, p in zip((depth, task), paths, strict=True)
                    )
                    if metres.shape == normals.shape[:2]:
                        yield metres, normals
            except BadImage:  # found bad, and said, when it is decoded
                continue


SOURCE = NYUv2


def _described(name: str, task: Task) -> Task:
    """The task with its classes or its unit."""
    if task.kind == "segment":
        return with_classes(name, task, CLASSES)
    return Task(task.name, task.kind, column=task.column, unit="m" if task.kind == "depth" else "")


def with_classes(name: str, task: Task, classes: tuple[str, ...]) -> Task:
    """The task with the archive's classes; others are refused, as a map holds numbers."""
    if task.classes and task.classes != classes:
        raise BadInput(
            f"{name}: task {task.name}: its classes are those of the archive",
            got=", ".join(task.classes[:8]),
            available=classes,
            try_="leave classes out",
        )
    return task.with_classes(classes)


FOCAL = 0.9  # of the image's width; a camera's true one is not needed to tell signs apart
STEPS = 96  # of a width, between the points of a surface: over some pixels noise weighs less
EDGE = 0.05  # neighbours whose depths differ by more, relative, lie on two surfaces

F64 = NDArray[np.float64]


def agreement(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> F64:
    """Cosines of x, y and z over all pixels of (depth HW, stored normals HW3); 0 where none."""
    both, mine, theirs = np.zeros(3), np.zeros(3), np.zeros(3)
    for depth_HW, stored_HW3 in pairs:
        measured, known = surface_normals(depth_HW)
        stored = stored_HW3[: len(measured), : measured.shape[1]].astype(np.float64)
        known &= (stored * stored).sum(-1) > 0.25
        a, b = measured[known], stored[known]
        both, mine, theirs = both + (a * b).sum(0), mine + (a * a).sum(0), theirs + (b * b).sum(0)
    found: F64 = both / np.maximum(np.sqrt(mine * theirs), 1e-12)
    return found


def surface_normals(depth_HW: NDArray[np.float32]) -> tuple[F64, NDArray[np.bool_]]:
    """Normals (H-s, W-s, 3) of the surfaces through a depth map's points; which are known."""
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
