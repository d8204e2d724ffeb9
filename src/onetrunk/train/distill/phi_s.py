"""PHI-S: features of several teachers made equally loud, each channel of them too (Ranzinger et
al. 2024).

    t' = α·H·Uᵀ·(t − μ), Σ = U Λ Uᵀ their covariance, α = 1/√(mean of Λ), H a Hadamard matrix/√C.

Every channel of t' has variance 1, and yet the features are only turned and scaled: by one number,
so that directions and distances keep their proportions. H mixes the principal axes in equal parts.
Of many widths there is no Hadamard matrix (or none that is known simply): there rotations of two
axes at a time, each of which brings one channel's variance to the mean, do the same.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST = 1e-12  # of the mean variance: features that never move are not blown up


def phi_s(covariance_CC: Tensor) -> Tensor:
    """The matrix α·H·Uᵀ."""
    values, axes = torch.linalg.eigh(covariance_CC.double())
    variance = values.clamp_min(0)
    # an eigenvector's sign is anyone's choice: its largest entry is positive here
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    turn = torch.from_numpy(turned(variance.cpu().numpy())).to(axes)
    made: Tensor = turn @ axes.T / variance.mean().clamp_min(LEAST).sqrt()
    return made


def turned(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthogonal Q: axes of these variances, turned by it, all have their mean."""
    found = hadamard(len(variances))
    return level(variances) if found is None else found


def hadamard(width: int) -> NDArray[np.float64] | None:
    """Entries ±1/√C, rows orthogonal: Sylvester's doubling of 1 or of a matrix of Paley's, whose
    width is 1 more than a prime 4k + 3; None where there is none of this kind."""
    core, doublings = width, 0
    while core > 1 and not (core % 4 == 0 and _prime(core - 1)):
        if core % 2:
            return None
        core, doublings = core // 2, doublings + 1
    made = np.ones((1, 1)) if core == 1 else _paley(core - 1)
    for _ in range(doublings):
        made = np.block([[made, made], [made, -made]])
    return made / math.sqrt(width)


def level(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """C − 1 rotations, of the largest and the smallest variance that are left (Schur 1923, Horn
    1954: such a rotation always exists)."""
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
        turn = np.array([[c, c * t], [-c * t, c]])
        two = [low, high]
        a[two] = turn @ a[two]
        a[:, two] = a[:, two] @ turn.T
        q[two] = turn @ q[two]
        left.remove(low)
    return q


def _paley(prime: int) -> NDArray[np.float64]:
    """I + S, S skew with the Legendre symbols χ(i − j) in its middle (Paley 1933)."""
    squares = {i * i % prime for i in range(1, prime)}
    symbol = np.array([0] + [1 if i in squares else -1 for i in range(1, prime)], np.float64)
    inner = symbol[(np.arange(prime)[:, None] - np.arange(prime)) % prime]
    skew = np.zeros((prime + 1, prime + 1))
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, inner
    return skew + np.eye(prime + 1)


def _prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))
