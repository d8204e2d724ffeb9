"""Standardised features: each channel of a teacher with mean 0 and deviation 1 over its domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.chance import permutation, seed_of
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.learn.distill.rows import rows
from onetrunk.learn.distill.teachers import Teacher

IMAGES = 512  # of the training split that the moments are taken of
BATCH = 32


@dataclass(frozen=True)
class Standard:
    """(t − mean)/deviation, channel by channel."""

    mean_C: Tensor
    std_C: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Rows (B, C), or maps (B, C, h, w)."""
        shape = (1, -1) + (1,) * (features.ndim - 2)
        return (features - self.mean_C.reshape(shape)) / self.std_C.reshape(shape)


def standard(
    teacher: Teacher, domain: Domain, points: Sequence[str], device: torch.device
) -> dict[str, Standard]:
    """Of a teacher's features at these points, over training images as evaluation sees them.

    Which images is a matter of the domain's name alone, so that a resumed run finds the same.
    """
    count = len(domain.train)
    places = permutation(seed_of("standard", domain.name), 0, count)[:IMAGES]
    sums: dict[str, list[Tensor]] = {}
    wanted = tuple(dict.fromkeys(points))
    for part in np.array_split(places, -(-len(places) // BATCH)):
        images, targets = domain.train.batch(part)
        batch = Batch(domain.name, images.to(device), targets, part, np.zeros_like(part))
        for point, features in teacher.look(batch.images, batch, wanted).features.items():
            x = rows(features).double()
            now = torch.stack([torch.full_like(x[0], len(x)), x.sum(0), x.square().sum(0)])
            sums.setdefault(point, []).append(now)
    return {point: _of(torch.stack(found).sum(0)) for point, found in sums.items()}


def _of(sums_3C: Tensor) -> Standard:
    count, total, square = sums_3C
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    # a channel that never moves has nothing to teach, and is not blown up
    return Standard(mean.float(), std.clamp_min(1e-3 * std.max()).clamp_min(1e-6).float())
