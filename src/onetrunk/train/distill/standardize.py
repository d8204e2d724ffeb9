"""Standardized teacher features: mean 0 and variance 1 per channel, over a domain's images.

`channel` divides each channel by its standard deviation.

`phi-s` is used if several teachers teach one task, so that none dominates (Ranzinger et al. 2024):

    t' = α·H·Uᵀ·(t − μ),    Σ = U Λ Uᵀ,    α = 1/√(mean of Λ)

Σ is the covariance of the features, and H a Hadamard matrix divided by √C, which mixes the
principal axes in equal parts. Every channel of t' has variance 1, while angles and the proportions
of distances stay the same, because t' is only rotated and scaled by one number. Where no Hadamard
matrix of the width is known, rotations of two axes at a time replace H: each of them brings the
variance of one channel to the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.train.distill.feature_losses import pixel_rows
from onetrunk.train.distill.teachers import Teacher

Method = Literal["channel", "phi-s"]
IMAGES = 512  # training images that the statistics are computed from
BATCH = 32
MIN_VARIANCE = 1e-12  # constant features are not scaled up


@dataclass(frozen=True)
class Standardizer:
    """The map W·(t − mean), where W is a matrix or one factor per channel."""

    mean_C: Tensor
    scale: Tensor  # (C,) or (C, C)

    def __call__(self, features: Tensor) -> Tensor:
        """Standardize rows (B, C) or maps (B, C, h, w)."""
        x = features.movedim(1, -1) - self.mean_C
        x = x * self.scale if self.scale.ndim == 1 else x @ self.scale.T
        return x.movedim(-1, 1)


def standardizers(
    teacher: Teacher, domain: Domain, points: Sequence[str], device: torch.device, method: Method
) -> dict[str, Standardizer]:
    """Return the standardizers of a teacher's features at these points.

    The statistics come from unaugmented training images. The choice of images depends on the
    domain's name alone, so that a resumed run computes the same statistics.
    """
    count = len(domain.train)
    places = permutation(seed_of("standard", domain.name), 0, count)[:IMAGES]
    sums: dict[str, list[tuple[Tensor, Tensor, int]]] = {}
    wanted = tuple(dict.fromkeys(points))
    for part in np.array_split(places, -(-len(places) // BATCH)):
        images, targets = domain.train.batch(part)
        batch = Batch(domain.name, images.to(device), targets, part, np.zeros_like(part))
        for point, features in teacher.forward(batch.images, batch, wanted).features.items():
            x = pixel_rows(features).double()
            square = x.T @ x if method == "phi-s" else x.square().sum(0)
            sums.setdefault(point, []).append((x.sum(0), square, len(x)))
    return {point: _from_sums(parts, method) for point, parts in sums.items()}


def _from_sums(sums: Sequence[tuple[Tensor, Tensor, int]], method: Method) -> Standardizer:
    """Return the standardizer from sums of rows, of their squares, and counts."""
    count = sum(n for _, _, n in sums)
    mean = torch.stack([total for total, _, _ in sums]).sum(0) / count
    square = torch.stack([square for _, square, _ in sums]).sum(0) / count
    if method == "phi-s":
        return Standardizer(mean.float(), phi_s(square - torch.outer(mean, mean)).float())
    std = (square - mean.square()).clamp_min(0).sqrt()
    # constant channels are not scaled up
    return Standardizer(mean.float(), 1 / std.clamp_min(1e-3 * std.max()).clamp_min(1e-6).float())


# -- PHI-S


def phi_s(covariance_CC: Tensor) -> Tensor:
    """Return the matrix α·H·Uᵀ."""
    values, axes = torch.linalg.eigh(covariance_CC.double())
    variance = values.clamp_min(0)
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    rotation = torch.from_numpy(equalizing_rotation(variance.cpu().numpy())).to(axes)
    matrix: Tensor = rotation @ axes.T / variance.mean().clamp_min(MIN_VARIANCE).sqrt()
    return matrix


def equalizing_rotation(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthogonal Q after which axes with these variances all have their mean."""
    matrix = hadamard(len(variances))
    return plane_rotations(variances) if matrix is None else matrix


def hadamard(width: int) -> NDArray[np.float64] | None:
    """Return a matrix of entries ±1/√C with orthogonal rows.

    Sylvester's construction doubles the matrix of width 1, or one of Paley's, whose width is a
    prime 4k + 3 plus 1. The result is None for widths of any other form.
    """
    core, doublings = width, 0
    while core > 1 and not (core % 4 == 0 and _is_prime(core - 1)):
        if core % 2:
            return None
        core, doublings = core // 2, doublings + 1
    matrix = np.ones((1, 1)) if core == 1 else _paley(core - 1)
    for _ in range(doublings):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(width)


def plane_rotations(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of at most C − 1 rotations that make all variances equal.

    Each one rotates the largest and the smallest remaining variance (Schur 1923, Horn 1954: such a
    rotation always exists).
    """
    width = len(variances)
    a, q = np.diag(variances.astype(np.float64)), np.eye(width)
    mean, left = float(variances.mean()), list(range(width))
    while len(left) > 1:
        low, high = min(left, key=lambda k: a[k, k]), max(left, key=lambda k: a[k, k])
        above, below = a[high, high] - mean, a[low, low] - mean
        if above <= 1e-12 * mean or low == high:
            break
        # t = tan of the angle: above·t² + 2·a_lh·t + below = 0 makes a_ll the mean
        cross = a[low, high]
        root = math.sqrt(max(cross * cross - above * below, 0.0))
        t = min((-cross + root) / above, (-cross - root) / above, key=abs)
        c = 1 / math.sqrt(1 + t * t)
        rotation = np.array([[c, c * t], [-c * t, c]])
        both = [low, high]
        a[both] = rotation @ a[both]
        a[:, both] = a[:, both] @ rotation.T
        q[both] = rotation @ q[both]
        left.remove(low)
    return q


def _paley(prime: int) -> NDArray[np.float64]:
    """Return I + S, where S is skew and holds the Legendre symbols χ(i − j) (Paley 1933)."""
    squares = {i * i % prime for i in range(1, prime)}
    symbol = np.array([0] + [1 if i in squares else -1 for i in range(1, prime)], np.float64)
    inner = symbol[(np.arange(prime)[:, None] - np.arange(prime)) % prime]
    skew = np.zeros((prime + 1, prime + 1))
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, inner
    return skew + np.eye(prime + 1)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))
