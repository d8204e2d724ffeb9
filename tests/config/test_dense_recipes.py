"""The recipes for archives of arrays, with small archives of the same layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onetrunk.config import Recipe

ARRAYS = {"nyuv2": ("label", "depth", "normal"), "cityscapes": ("label_7", "depth")}
TASKS = {
    "nyuv2": {"segment": ("", 13), "depth": ("m", 0), "normals": ("", 0)},
    "cityscapes": {"segment": ("", 7), "depth": ("disparity", 0)},
}


def archive(root: Path, names: tuple[str, ...]) -> None:
    """Write scenes of a floor, nearer at the bottom, between slanted walls."""
    height, width = 36, 48
    across = (np.arange(width) - width / 2 + 0.5) / (0.9 * width)
    up = -(np.arange(height)[:, None] - height / 2 + 0.5) / (0.9 * width)
    n = np.array([0.4, 0.4, 0.8246])
    for i in range(12):
        side = n * (1 if i % 2 else -1, 1, 1)
        depth = -4 / (side[0] * across + side[1] * up - side[2])
        arrays = {
            "image": np.random.default_rng(i).random((height, width, 3)),
            "label": np.full((height, width), i % 7),
            "label_7": np.full((height, width), i % 7),
            "depth": depth[..., None],
            "normal": np.broadcast_to(side, (height, width, 3)),
        }
        for split in ("train", "val"):
            for name in ("image", *names):
                (root / split / name).mkdir(parents=True, exist_ok=True)
                np.save(root / split / name / f"{i}.npy", arrays[name])


@pytest.mark.parametrize("data", TASKS)
def test_both_recipes_read_the_same_data(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archive(tmp_path / "data" / data, ARRAYS[data])
    one = Recipe.named(f"universal-2022-{data}")
    each = Recipe.named(f"universal-2022-{data}-specialists")
    (together,) = one.make_domains()
    assert {t.name: (t.unit, len(t.classes)) for t in together.tasks} == TASKS[data]
    apart = each.make_domains()
    assert [task for domain in apart for task in domain.tasks] == list(together.tasks)
    for domain in apart:
        assert domain.index.split.tolist() == together.index.split.tolist()
        assert (domain.shape, domain.augmentation) == (together.shape, together.augmentation)
    assert one.train == each.train
    assert (one.trunk.sharing, each.trunk.sharing) == ("deep", "none")
    assert together.augmentation.scale == (1.0, 1.5)
    assert together.augmentation.flip
