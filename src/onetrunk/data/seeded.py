"""Stateless random numbers: they depend only on names, not on earlier draws.

A draw is a hash of (seed, image, view, lane). No generator has a state, so batches are the same
with any number of workers and after resuming at any step, and the n-th view of an image is the
same in every batch.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seed_of(*names: object) -> int:
    """Return 64 bits from a seed and names, for example `seed_of(3, "digits", "augment")`."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(state: U64) -> U64:
    """Mix the bits of 64-bit integers: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class Chance:
    """Uniform numbers, one for each (image, view); lanes number the draws of one image."""

    def __init__(self, seed: int, images: ArrayLike, views: ArrayLike) -> None:
        with np.errstate(over="ignore"):
            state = mix(np.asarray(images, np.uint64) * GOLDEN + np.uint64(seed))
            self._state = mix(state + np.asarray(views, np.uint64) * GOLDEN + np.uint64(1))

    def __call__(self, lane: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Draw numbers in [low, high)."""
        if low == high:
            return np.full(self._state.shape, low)
        with np.errstate(over="ignore"):
            bits = mix(self._state + np.uint64(lane + 1) * GOLDEN)
        return low + (high - low) * ((bits >> np.uint64(11)) / 2.0**53)


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return a random order of n items for an epoch, without drawing those of other epochs."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(n)
