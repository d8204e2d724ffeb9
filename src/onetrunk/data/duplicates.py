"""Exact and near duplicates among the images of a domain.

Two images are *near* when the difference hashes of their 16×16 grey thumbnails differ in at most
`BITS` of 64 bits and the thumbnails themselves by at most `GREY` grey levels on average. The hash
makes the search fast, the thumbnails make it right: on digits and glyphs many different images
share a hash.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

THUMB = 16  # pixels, thumbnail's side
BITS = 3  # of 64: hashes that differ in more are never compared
CHUNK = 16_384  # thumbnails compared at once
GREY = 4.0  # of 255: mean absolute difference of two thumbnails that count as near

U8 = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # grey of RGB (ITU-R BT.601)
Pairs = NDArray[np.int64]


def thumbnails(images_BHWC: U8) -> U8:
    """The 16×16 grey thumbnails that near duplicates are evaluated on: means over equal areas."""
    count, height, width = images_BHWC.shape[:3]
    rows = images_BHWC.reshape(count, height, -1).astype(np.float32)
    down = _areas(height) @ rows  # first whole rows, which are many values at once
    across: NDArray[np.float32] = _areas(width) @ down.reshape(count, THUMB, width, -1)
    grey: NDArray[np.float32] = across @ LUMA if across.shape[3] == 3 else across[..., 0]
    rounded: U8 = np.floor(grey + np.float32(0.5)).astype(np.uint8)
    return rounded


def thumbnail(image_HWC: U8) -> U8:
    """One image's thumbnail."""
    first: U8 = thumbnails(image_HWC[None])[0]
    return first


@lru_cache
def _areas(length: int) -> NDArray[np.float32]:
    """(16, length): the share of each pixel in each of 16 equal parts of a side."""
    edges = np.linspace(0, length, THUMB + 1)
    at = np.arange(length)
    shares = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    shares = np.maximum(shares, 0)
    whole: NDArray[np.float32] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return whole


def difference_hash(thumbs_NHW: U8) -> NDArray[np.uint64]:
    """64 bits an image: is a cell of the 8×9 picture brighter than its right neighbour?"""
    n = len(thumbs_NHW)
    rows = thumbs_NHW.reshape(n, 8, 2, THUMB).mean(2)
    edges = np.linspace(0, THUMB - 1, 9).round().astype(int)
    cells = rows[:, :, edges]
    bits = cells[:, :, :-1] > cells[:, :, 1:]
    packed = np.packbits(bits.reshape(n, 64), axis=1)
    return packed.view(np.uint64).reshape(n)


def near_pairs(thumbs_a: U8, thumbs_b: U8, *, limit: int = 1_000_000) -> Pairs:
    """Pairs (i, j), image i of a near image j of b; at most `limit` of them, in order.

    Hashes within 3 bits agree wholly on one of four 16-bit bands (pigeonhole), so only images that
    share a band are compared: the cost grows with the matches, not with len(a)·len(b).
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
    found: list[Pairs] = []
    count = 0
    for i in np.flatnonzero(np.any([high > low for _, low, high in bands], 0)):
        alike = [order[low[i] : high[i]] for order, low, high in bands]
        j = np.unique(np.concatenate([k[_bits(hash_b[k], hash_a[i]) <= BITS] for k in alike]))
        near = [
            k[_gap(thumbs_b[k], thumbs_a[i]) <= GREY]
            for k in np.array_split(j, len(j) // CHUNK + 1)
        ]
        j = np.concatenate(near)
        found.append(np.stack([np.full(len(j), i), j], 1))
        count += len(j)
        if count >= limit:  # images that are all alike would fill the memory with their pairs
            break
    if not found:
        return np.empty((0, 2), np.int64)
    return np.concatenate(found)[:limit].astype(np.int64)


def _bits(hashes: NDArray[np.uint64], other: np.uint64) -> NDArray[np.uint8]:
    count: NDArray[np.uint8] = np.bitwise_count(hashes ^ other)
    return count


def _gap(thumbs_NHW: U8, other_HW: U8) -> NDArray[np.float64]:
    gap = np.abs(thumbs_NHW.astype(np.int16) - other_HW.astype(np.int16))
    mean: NDArray[np.float64] = gap.mean((1, 2))
    return mean
