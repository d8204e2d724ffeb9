"""Small folders of images, and a finished `onetrunk unify` of two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.config import Recipe
from onetrunk.report.unify import Result, unify_recipe

TEXT = """
name = "two"
out = "runs/two"
[trunk]
arch = "resnet20"
[[domains]]
name = "one"
source = "folder:one"
size = 8
[[domains]]
name = "other"
source = "folder:other"
size = 8
[train]
steps = 10
batch = 8
"""


def photos(root: Path, seed: int) -> None:
    """Write noisy images of two classes, bright and dark, in three splits."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", 16), ("val", 8), ("test", 12)):
        for label, level in (("dark", 0), ("bright", 60)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                image = level + rng.integers(0, 120, (8, 8, 3))
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")


def two_folders(root: Path) -> Recipe:
    """Write two folders of images, and return the recipe for them."""
    for seed, name in enumerate(("one", "other")):
        photos(root / name, seed)
    return Recipe.parse(TEXT, root)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return two_folders(tmp_path)


@pytest.fixture(scope="session")
def unified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of two domains, and the result of unifying them; not to be changed."""
    root = tmp_path_factory.mktemp("unified")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONETRUNK_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)  # as in each test
        return root, unify_recipe(two_folders(root), seconds=3600.0, device="cpu")
