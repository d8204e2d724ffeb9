"""Exact and near duplicates among the images of a domain.

Two images are *near* when the difference hashes of their 16×16 grey thumbnails differ in at most
`BITS` of 64 bits and the thumbnails themselves by at most `GREY` grey levels on average. The hash
makes the search fast, the thumbnails make it right: on digits and glyphs many different images
share a hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB = 16  # pixels, thumbnail's side
BITS = 3  # of 64: hashes that differ in more are never compared
CHUNK = 16_384  # thumbnails compared at once
GREY = 4.0  # of 255: mean absolute difference of two thumbnails that count as near

U8 = NDArray[np.uint8]
Pairs = NDArray[np.int64]


def thumbnail(image_HWC: U8) -> U8:
    """The 16×16 grey thumbnail that near duplicates are judged on."""
    picture = Image.fromarray(image_HWC.squeeze())
    grey = picture.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.uint8)


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
