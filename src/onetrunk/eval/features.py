"""Features of a domain's images inside a model: by depth, and pooled; seeded draws of images."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onetrunk.data.split import Split
from onetrunk.errors import BadInput
from onetrunk.nn.universal import Universal

BATCH = 64  # images of one pass
FEWEST = 8  # images that a norm without kept statistics needs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode inside; every module's own mode comes back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def draw(split: Split, name: str, count: int, seed: int) -> NDArray[np.int64]:
    """At most so many places of a split, in order: the same for the same seed and domain."""
    if len(split) == 0:
        raise BadInput(f"{name}: its {split.name} split is empty")
    chance = np.random.default_rng([seed, zlib.crc32(name.encode())])
    places = chance.choice(len(split), min(count, len(split)), replace=False)
    return np.sort(places).astype(np.int64)


def parts(places: NDArray[np.int64], batch: int = BATCH) -> list[NDArray[np.int64]]:
    """Batches of about equal size, none larger than `batch`."""
    return np.array_split(places, max(1, -(-len(places) // batch)))


def depth_names(model: Universal) -> tuple[str, ...]:
    """What the trunk's maps are called, shallow first, and "pooled" for what heads read."""
    trunk = model.trunk
    if len(trunk.stages) == len(trunk.reductions):
        return (*(f"stage {s}" if s.isdecimal() else s for s in trunk.stages), "pooled")
    return (*(f"level {i + 1}" for i in range(len(trunk.reductions))), "pooled")


def by_depth(model: Universal, name: str, images_BCHW: Tensor) -> list[Tensor]:
    """Features (B, C) through this domain's slots: each map's mean over its pixels, then pooled."""
    if name not in model.domains:
        raise BadInput("unknown domain", got=name, available=model.domains)
    trunk = model.trunk
    like = next(model.parameters())
    with torch.inference_mode(), trunk.switch.using(name):
        x = images_BCHW.to(like.device, like.dtype)
        pooled, maps = trunk(x, True, range(len(trunk.reductions)))
    return [*(m.mean((2, 3)).float().cpu() for m in maps), pooled.float().cpu()]


def pooled(model: Universal, name: str, split: Split, places: NDArray[np.int64]) -> Tensor:
    """Pooled features (B, C) of these images through this domain's slots."""
    found = []
    like = next(model.parameters())
    with evaluating(model), torch.inference_mode():
        for part in parts(places):
            images = split.batch(part)[0].to(like.device, like.dtype)
            with model.trunk.switch.using(name):
                found.append(model.trunk(images)[0].float().cpu())
    return torch.cat(found)
