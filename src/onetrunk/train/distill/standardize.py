"""Standardised features: a teacher's, with mean 0 and standard deviation 1 in every channel of its domain.

`channel`: each channel by its own standard deviation. `phi-s`, where several teachers teach one task: by one
number and a rotation, so that none of them is heard above the others (phis.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.train.distill.feature_rows import rows
from onetrunk.train.distill.phi_s import phi_s
from onetrunk.train.distill.teachers import Teacher

How = Literal["channel", "phi-s"]
IMAGES = 512  # of the training split that the statistics are taken of
BATCH = 32


@dataclass(frozen=True)
class Standard:
    """W·(t − mean), W a matrix, or a factor for each channel."""

    mean_C: Tensor
    scale: Tensor  # (C,) or (C, C)

    def __call__(self, features: Tensor) -> Tensor:
        """Rows (B, C), or maps (B, C, h, w)."""
        x = features.movedim(1, -1) - self.mean_C
        x = x * self.scale if self.scale.ndim == 1 else x @ self.scale.T
        return x.movedim(-1, 1)


def standard(
    teacher: Teacher, domain: Domain, points: Sequence[str], device: torch.device, how: How
) -> dict[str, Standard]:
    """Of a teacher's features at these points, over training images as evaluation sees them.

    Which images is a matter of the domain's name alone, so that a resumed run finds the same.
    """
    count = len(domain.train)
    places = permutation(seed_of("standard", domain.name), 0, count)[:IMAGES]
    sums: dict[str, list[tuple[Tensor, Tensor, int]]] = {}
    wanted = tuple(dict.fromkeys(points))
    for part in np.array_split(places, -(-len(places) // BATCH)):
        images, targets = domain.train.batch(part)
        batch = Batch(domain.name, images.to(device), targets, part, np.zeros_like(part))
        for point, features in teacher.look(batch.images, batch, wanted).features.items():
            x = rows(features).double()
            square = x.T @ x if how == "phi-s" else x.square().sum(0)
            sums.setdefault(point, []).append((x.sum(0), square, len(x)))
    return {point: _of(found, how) for point, found in sums.items()}


def _of(sums: Sequence[tuple[Tensor, Tensor, int]], how: How) -> Standard:
    count = sum(n for _, _, n in sums)
    mean = torch.stack([total for total, _, _ in sums]).sum(0) / count
    square = torch.stack([square for _, square, _ in sums]).sum(0) / count
    if how == "phi-s":
        return Standard(mean.float(), phi_s(square - torch.outer(mean, mean)).float())
    std = (square - mean.square()).clamp_min(0).sqrt()
    # a channel that never moves has nothing to teach, and is not blown up
    return Standard(mean.float(), 1 / std.clamp_min(1e-3 * std.max()).clamp_min(1e-6).float())
