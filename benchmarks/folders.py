"""Small folders of real images for few.py: four embedded domains, and two from other packages.

Each has a pool of images that may be drawn for training, and held-out images.

- creatures, digits, emoji, fashion: the embedded domains; the pool is train and val, held out is
  test.
- faces: 200 grey pictures of 25 × 25 pixels, faces and other parts of photographs (a subset of
  Labeled Faces in the Wild); the last 50 of each class are held out.
- photographs: grey windows of 24 to 64 pixels from 12 photographs, changed in brightness and
  contrast; the class is the photograph. The pool is from their left three fifths, and held out are
  windows of the right third.

faces and photographs are files of the package scikit-image: pip install scikit-image.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import onetrunk as ot
from onetrunk.data.sources import Item, NoTargets

U8 = NDArray[np.uint8]
EMBEDDED = ("creatures", "digits", "emoji", "fashion")
FOLDERS = (*EMBEDDED, "faces", "photographs")
HELD_OUT = 400  # images, at most
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "cell.png", "chelsea.png", "coffee.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg",
)  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Images with labels: a pool to draw from, and held-out ones."""

    name: str
    classes: tuple[str, ...]
    pool: tuple[list[U8], NDArray[np.int64]]
    held_out: tuple[list[U8], NDArray[np.int64]]

    @property
    def largest(self) -> int:
        """The number of images that can be drawn of every class."""
        return int(np.bincount(self.pool[1], minlength=len(self.classes)).min())

    def drawn(self, each: int, seed: int, held_out: int = HELD_OUT) -> Drawn:
        """Return a source of `each` random images a class, and at most `held_out` for the test."""
        chance = np.random.default_rng([seed, each, *self.name.encode()])
        labels, rows = self.pool[1], list[int]()
        for c in range(len(self.classes)):
            rows += chance.permutation(np.flatnonzero(labels == c))[:each].tolist()
        fixed = np.random.default_rng([*self.name.encode()])
        test = fixed.permutation(len(self.held_out[1]))[:held_out]
        return Drawn(self, sorted(rows), sorted(test.tolist()))


class Drawn(NoTargets):
    """A source of some images of a folder, to train on and to test on."""

    def __init__(self, folder: Folder, train: list[int], test: list[int]) -> None:
        self.folder, self.train, self.test = folder, train, test
        self.tasks: tuple[ot.Task, ...] = (ot.Task("classify", "classify", folder.classes),)

    def items(self) -> Iterator[Item]:
        """Yield the drawn images."""
        for split, rows, labels in (
            ("train", self.train, self.folder.pool[1]),
            ("test", self.test, self.folder.held_out[1]),
        ):
            for row in rows:
                label = {"classify": self.folder.classes[labels[row]]}
                yield Item(f"{split}/{row:05}.png", f"{split}/{row}", self.folder.name, split,
                           None, label)  # fmt: skip

    def image(self, where: str) -> U8:
        """Return one image."""
        split, row = where.split("/")
        part = self.folder.pool if split == "train" else self.folder.held_out
        return part[0][int(row)]


def read_folder(name: str) -> Folder:
    """Return a folder by its name."""
    if name == "faces":
        return _faces()
    return _photographs() if name == "photographs" else _embedded(name)


def _embedded(name: str) -> Folder:
    domain = ot.Domain(name, f"pocket:{name}", cache=False)
    images: dict[str, list[U8]] = {"pool": [], "held out": []}
    labels: dict[str, list[int]] = {"pool": [], "held out": []}
    (task,) = domain.tasks
    for item in domain.opened.items():
        part = "held out" if item.split == "test" else "pool"
        images[part].append(np.asarray(domain.opened.image(item.where)))
        labels[part].append(task.classes.index(str(item.labels["classify"])))
    pool, held = ((images[p], np.array(labels[p])) for p in ("pool", "held out"))
    return Folder(name, task.classes, pool, held)


def _package() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("expected: the package scikit-image; try: pip install scikit-image")
    return Path(spec.submodule_search_locations[0]) / "data"


def _faces() -> Folder:
    grey = np.load(_package() / "lfw_subset.npy")  # the first hundred are faces
    images = [(255 * each).round().astype(np.uint8) for each in grey]
    labels = np.repeat([0, 1], 100)
    pool = [i for i in range(200) if i % 100 < 50]
    held = [i for i in range(200) if i % 100 >= 50]
    return Folder(
        "faces",
        ("face", "other"),
        ([images[i] for i in pool], labels[pool]),
        ([images[i] for i in held], labels[held]),
    )


def _photographs() -> Folder:
    chance = np.random.default_rng(0)
    pool: list[U8] = []
    held: list[U8] = []
    for file in PHOTOGRAPHS:
        with Image.open(_package() / file) as opened:
            grey = np.asarray(opened.convert("L"))
        width = grey.shape[1]
        pool += [_window(grey[:, : width * 3 // 5], chance) for _ in range(60)]
        held += [_window(grey[:, width * 2 // 3 :], chance) for _ in range(33)]
    classes = tuple(file.split(".")[0] for file in PHOTOGRAPHS)
    every = np.arange(len(classes))
    return Folder(
        "photographs", classes, (pool, np.repeat(every, 60)), (held, np.repeat(every, 33))
    )


def _window(grey: U8, chance: np.random.Generator) -> U8:
    """Return a random square of a grey picture, with another brightness and contrast."""
    side = int(chance.integers(24, 65))
    top, left = (int(chance.integers(0, length - side + 1)) for length in grey.shape)
    window = grey[top : top + side, left : left + side].astype(np.float64)
    centre = window.mean()
    changed = (window - centre) * chance.uniform(0.6, 1.4) + 128 + chance.uniform(-40, 40)
    return np.asarray(changed.clip(0, 255), np.uint8)
