"""Near duplicates among the images of a domain.

Two images are near duplicates if the difference hashes of their 16×16 grey thumbnails differ in at
most `BITS` of 64 bits, and the thumbnails by at most `GREY` grey levels on average. The hash makes
the search fast; the thumbnails make it precise, as many different digits and glyphs share a hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onetrunk.progress import Track

THUMB = 16  # pixels, the side of a thumbnail
BITS = 3  # of 64: images whose hashes differ in more bits are never compared
CHUNK = 16_384  # thumbnails compared at once
SMALL = 256  # images with the same band: all pairs of a smaller bucket are formed at once
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
    """Return the thumbnail of one image; the programs in tools/pocket use it."""
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
    pairs: list[Pairs] = []
    count = 0
    for i, alike in _sharing_a_band(hash_a, hash_b):
        j = np.unique(
            np.concatenate([k[np.bitwise_count(hash_b[k] ^ hash_a[i]) <= BITS] for k in alike])
        )
        j = j[is_near(thumbs_b, j, thumbs_a[i])]
        pairs.append(np.stack([np.full(len(j), i), j], 1))
        count += len(j)
        if count >= limit:  # the pairs of many equal images would fill the memory
            break
    if not pairs:
        return np.empty((0, 2), np.int64)
    return np.concatenate(pairs)[:limit].astype(np.int64)


def near_groups(thumbs_NHW: U8) -> NDArray[np.int64]:
    """Return for each image the first image of its group.

    A group is a connected component: every image of it is near to another one. Images that are
    known to be in the same group are not compared again, so many equal images are no problem.
    """
    count = len(thumbs_NHW)
    flat = (
        np.ascontiguousarray(thumbs_NHW)
        .reshape(count, THUMB * THUMB)
        .view(f"V{THUMB * THUMB}")
        .reshape(-1)
    )
    _, single, where = np.unique(flat, return_index=True, return_inverse=True)
    thumbs = thumbs_NHW[single]
    groups = _Groups(len(single))
    hashes = difference_hash(thumbs)
    with Track("comparing images", 4 * len(single)) as track:
        for key in _bands(hashes):
            order = np.argsort(key, kind="stable")
            breaks = np.flatnonzero(np.diff(key[order])) + 1
            starts = np.concatenate([[0], breaks]) if len(order) else breaks
            sizes = np.diff(np.concatenate([starts, [len(order)]]))
            for start, size in zip(starts[sizes > SMALL], sizes[sizes > SMALL], strict=True):
                _join_many(order[start : start + size], thumbs, hashes, groups)
                track(int(size))
            at = np.flatnonzero(np.repeat(sizes, sizes) <= SMALL)
            track(len(at))
            for distance in range(1, SMALL):  # pairs at this distance in the same bucket
                at = at[at + distance < len(order)]
                at = at[key[order[at]] == key[order[at + distance]]]
                if not len(at):
                    break
                i, j = order[at], order[at + distance]
                close = (np.bitwise_count(hashes[i] ^ hashes[j]) <= BITS) & groups.differ(i, j)
                _join_near(i[close], j[close], thumbs, groups)
    first = np.full(len(single), count)
    np.minimum.at(first, groups.number, single)
    result: NDArray[np.int64] = first[groups.number][where]
    return result


class _Groups:
    """Disjoint sets of images, of which the smaller one is renumbered when two are joined."""

    def __init__(self, count: int) -> None:
        self.number = np.arange(count)  # the group of each image
        self._members: dict[int, NDArray[np.int64]] = {}  # of each group of several images

    def differ(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether images are in different groups."""
        different: NDArray[np.bool_] = self.number[i] != self.number[j]
        return different

    def join(self, i: int, j: int) -> None:
        """Join the groups of two images."""
        a, b = int(self.number[i]), int(self.number[j])
        if a == b:
            return
        mine, other = (self._members.pop(g, np.array([g])) for g in (a, b))
        small, number = (mine, b) if len(mine) < len(other) else (other, a)
        self.number[small] = number
        self._members[number] = np.concatenate([mine, other])


def _join_near(i: NDArray[np.int64], j: NDArray[np.int64], thumbs: U8, groups: _Groups) -> None:
    """Join the groups of those pairs of images that are near."""
    for part in np.array_split(np.arange(len(i)), len(i) // CHUNK + 1):
        near = _gap(thumbs[i[part]], thumbs[j[part]]) <= GREY
        for a, b in zip(i[part][near].tolist(), j[part][near].tolist(), strict=True):
            groups.join(a, b)


def _join_many(
    bucket: NDArray[np.int64], thumbs: U8, hashes: NDArray[np.uint64], groups: _Groups
) -> None:
    """Join the groups of near images in a large bucket, until it is one group."""
    for place, i in enumerate(bucket.tolist()):
        rest = bucket[place + 1 :]
        rest = rest[groups.number[rest] != groups.number[i]]
        if not len(rest) and (groups.number[bucket] == groups.number[i]).all():
            return
        rest = rest[np.bitwise_count(hashes[rest] ^ hashes[i]) <= BITS]
        for j in rest[is_near(thumbs, rest, thumbs[i])].tolist():
            groups.join(i, j)


def is_near(thumbs_NHW: U8, places: NDArray[np.int64], other_HW: U8) -> NDArray[np.bool_]:
    """Return which of these thumbnails differ little from another one; a few at a time."""
    parts = [
        _gap(thumbs_NHW[k], other_HW) <= GREY
        for k in np.array_split(places, len(places) // CHUNK + 1)
    ]
    return np.concatenate(parts)


def _sharing_a_band(
    hash_a: NDArray[np.uint64], hash_b: NDArray[np.uint64]
) -> Iterator[tuple[int, list[NDArray[np.int64]]]]:
    """Yield the images i of a that share a band with images of b, and these by band."""
    bands = []
    for key_a, key_b in zip(_bands(hash_a), _bands(hash_b), strict=True):
        order = np.argsort(key_b, kind="stable")
        low = np.searchsorted(key_b[order], key_a, "left")
        high = np.searchsorted(key_b[order], key_a, "right")
        bands.append((order, low, high))
    for i in np.flatnonzero(np.any([high > low for _, low, high in bands], 0)).tolist():
        yield i, [order[low[i] : high[i]] for order, low, high in bands]


def _bands(hashes: NDArray[np.uint64]) -> list[NDArray[np.uint64]]:
    """Return the four bands of 16 bits of hashes; hashes within 3 bits share at least one."""
    return [(hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF) for band in range(4)]


def _gap(thumbs_NHW: U8, other_HW: U8) -> NDArray[np.float64]:
    gap = np.abs(thumbs_NHW.astype(np.int16) - other_HW.astype(np.int16))
    mean: NDArray[np.float64] = gap.mean((1, 2))
    return mean
