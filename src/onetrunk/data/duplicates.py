"""Near duplicates among the images of a domain.

Two images are near duplicates if the difference hashes of their 16×16 grey thumbnails differ in at
most `BITS` of 64 bits, and the thumbnails by at most `GREY` grey levels on average. The hash makes
the search fast; the thumbnails make it precise, as many different digits and glyphs share a hash.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

THUMB = 16  # pixels, the side of a thumbnail
BITS = 3  # of 64: images whose hashes differ in more bits are never compared
CHUNK = 16_384  # thumbnails compared at once
GREY = 4.0  # of 255: the largest mean absolute difference of two near thumbnails

U8 = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # grey of RGB (ITU-R BT.601)
Pairs = NDArray[np.int64]


def thumbnails(images_BHWC: U8) -> U8:
    """Return 16×16 grey thumbnails, the means over equal areas."""
    count, height, width = images_BHWC.shape[:3]
    rows = images_BHWC.reshape(count, height, -1).astype(np.float32)
    down = _areas(height) @ rows  # rows first, as one product of many values
    across: NDArray[np.float32] = _areas(width) @ down.reshape(count, THUMB, width, -1)
    grey: NDArray[np.float32] = across @ LUMA if across.shape[3] == 3 else across[..., 0]
    rounded: U8 = np.floor(grey + np.float32(0.5)).astype(np.uint8)
    return rounded


def thumbnail(image_HWC: U8) -> U8:
    """Return the thumbnail of one image."""
    first: U8 = thumbnails(image_HWC[None])[0]
    return first


@lru_cache
def _areas(length: int) -> NDArray[np.float32]:
    """Return (16, length): the weight of each pixel in each of 16 equal parts of a side."""
    edges = np.linspace(0, length, THUMB + 1)
    at = np.arange(length)
    shares = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    shares = np.maximum(shares, 0)
    weights: NDArray[np.float32] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return weights


def difference_hash(thumbs_NHW: U8) -> NDArray[np.uint64]:
    """Return 64 bits per image: whether a cell of its 8×9 version is brighter than the next one."""
    n = len(thumbs_NHW)
    rows = thumbs_NHW.reshape(n, 8, 2, THUMB).mean(2)
    edges = np.linspace(0, THUMB - 1, 9).round().astype(int)
    cells = rows[:, :, edges]
    bits = cells[:, :, :-1] > cells[:, :, 1:]
    packed = np.packbits(bits.reshape(n, 64), axis=1)
    return packed.view(np.uint64).reshape(n)


def near_pairs(thumbs_a: U8, thumbs_b: U8, *, limit: int = 1_000_000) -> Pairs:
    """Return pairs (i, j) where image i of a is near image j of b, in order, at most `limit`.

    Hashes within 3 bits agree on at least one of four 16-bit bands (pigeonhole), so only images
    that share a band are compared: the cost grows with the matches, not with len(a)·len(b).
    """
    hash_a, hash_b = difference_hash(thumbs_a), difference_hash(thumbs_b)
    bands = []
    for band in range(4):
        shift = np.uint64(16 * band)
        key_a = (hash_a >> shift) & np.uint64(0xFFFF)
        key_b = (hash_b >> shift) & np.uint64(0xFFFF)
        order = np.argsort(key_b, kind="stable")
        low = np.searchsorted(key_b[order], key_a, "left")
        high = np.searchsorted(key_b[order], key_a, "right")
        bands.append((order, low, high))
    pairs: list[Pairs] = []
    count = 0
    for i in np.flatnonzero(np.any([high > low for _, low, high in bands], 0)):
        alike = [order[low[i] : high[i]] for order, low, high in bands]
        j = np.unique(
            np.concatenate([k[np.bitwise_count(hash_b[k] ^ hash_a[i]) <= BITS] for k in alike])
        )
        near = [
            k[_gap(thumbs_b[k], thumbs_a[i]) <= GREY]
            for k in np.array_split(j, len(j) // CHUNK + 1)
        ]
        j = np.concatenate(near)
        pairs.append(np.stack([np.full(len(j), i), j], 1))
        count += len(j)
        if count >= limit:  # the pairs of many equal images would fill the memory
            break
    if not pairs:
        return np.empty((0, 2), np.int64)
    return np.concatenate(pairs)[:limit].astype(np.int64)


def _gap(thumbs_NHW: U8, other_HW: U8) -> NDArray[np.float64]:
    gap = np.abs(thumbs_NHW.astype(np.int16) - other_HW.astype(np.int16))
    mean: NDArray[np.float64] = gap.mean((1, 2))
    return mean
