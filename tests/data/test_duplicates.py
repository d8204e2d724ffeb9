"""Near duplicates, against a slow comparison of all pairs; memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onetrunk.data import duplicates
from onetrunk.data.duplicates import (
    BITS,
    GREY,
    difference_hash,
    near_groups,
    near_pairs,
    thumbnails,
)
from tests.helpers.fakes import picture


def smooth(seed: int, count: int = 1) -> np.ndarray:
    """Return thumbnails of soft blobs, which resemble photographs more than noise does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (count, 4, 4), dtype=np.uint8)
    thumbs = [np.asarray(Image.fromarray(c).resize((16, 16))) for c in coarse]
    return np.array(thumbs, np.uint8).reshape(count, 16, 16)


def slow_hash(thumb: np.ndarray) -> list[bool]:
    bits = []
    for r in range(8):
        row = (thumb[2 * r].astype(float) + thumb[2 * r + 1]) / 2
        cells = [row[round(15 * c / 8)] for c in range(9)]
        bits += [cells[c] > cells[c + 1] for c in range(8)]
    return bits


def test_the_hash_compares_each_cell_with_its_right_neighbour() -> None:
    thumbs = thumbnails(np.stack([picture(i, 20, 20) for i in range(5)]))
    for thumb, value in zip(thumbs, difference_hash(thumbs), strict=True):
        expected = slow_hash(thumb)
        found = np.unpackbits(np.array([value]).view(np.uint8)).astype(bool).tolist()
        assert found == expected


def slow_pairs(a: np.ndarray, b: np.ndarray) -> list[list[int]]:
    found = []
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            bits = sum(x != y for x, y in zip(slow_hash(one), slow_hash(other), strict=True))
            gap = np.abs(one.astype(int) - other.astype(int)).mean()
            if bits <= BITS and gap <= GREY:
                found.append([i, j])
    return found


def test_pairs_are_those_of_comparing_all_images() -> None:
    rng = np.random.default_rng(4)
    a = smooth(1, 40)
    moved = np.clip(a[:20].astype(int) + rng.integers(-3, 4, a[:20].shape), 0, 255).astype(np.uint8)
    b = np.concatenate([smooth(2, 20), moved, a[30:35]])
    pairs = near_pairs(a, b)
    assert pairs.tolist() == slow_pairs(a, b)
    assert [[30 + i, 40 + i] in pairs.tolist() for i in range(5)] == [True] * 5
    assert 5 < len(pairs) < 200


def test_a_brighter_or_smaller_copy_is_near_and_a_mirrored_one_is_not() -> None:
    big = np.repeat(np.repeat(smooth(3, 1)[0], 8, 0), 8, 1)[:, :, None].repeat(3, 2)
    copies = [big, np.clip(big.astype(int) + 3, 0, 255).astype(np.uint8), big[::2, ::2]]
    thumbs = np.concatenate([thumbnails(c[None]) for c in copies])
    assert len(near_pairs(thumbs[:1], thumbs)) == 3
    mirrored = thumbnails(np.ascontiguousarray(big[None, :, ::-1]))
    assert len(near_pairs(thumbs[:1], mirrored)) == 0


def test_different_pictures_of_one_hash_are_not_near() -> None:
    flat = np.full((1, 16, 16), 10, np.uint8)
    assert difference_hash(flat) == difference_hash(flat + 100)
    assert len(near_pairs(flat, flat + 100)) == 0
    assert len(near_pairs(flat, flat + 3)) == 1


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pairs that were compared, for each call."""
    counts: list[int] = []
    gap = duplicates._gap

    def counted(thumbs: np.ndarray, other: np.ndarray) -> np.ndarray:
        counts.append(len(thumbs))
        return gap(thumbs, other)

    monkeypatch.setattr(duplicates, "_gap", counted)
    return counts


def test_the_limit_ends_the_search_and_keeps_the_order(compared: list[int]) -> None:
    alike = np.zeros((300, 16, 16), np.uint8)
    pairs = near_pairs(alike, alike, limit=500)
    assert pairs.tolist() == [[i, j] for i in range(2) for j in range(300)][:500]
    assert sum(compared) == 600  # and not all 90,000


def test_without_images_there_are_no_pairs() -> None:
    none = np.zeros((0, 16, 16), np.uint8)
    for a, b in ((none, none), (none, smooth(1, 3)), (smooth(1, 3), none)):
        assert near_pairs(a, b).shape == (0, 2)


def slow_groups(thumbs: np.ndarray) -> list[int]:
    """The first image of each image's group, by following all pairs until nothing changes."""
    group = list(range(len(thumbs)))
    pairs = slow_pairs(thumbs, thumbs)
    while True:
        before = list(group)
        for i, j in pairs:
            group[i] = group[j] = min(group[i], group[j])
        if group == before:
            return group


@pytest.mark.parametrize("small", [2, 256])
def test_groups_are_those_of_comparing_all_images(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "SMALL", small)
    rng = np.random.default_rng(5)
    a = smooth(6, 30)
    chain = [a[0].astype(int) + 3 * step for step in range(8)]  # each near the next ones alone
    copies = a[:10].astype(int) + rng.integers(-2, 3, a[:10].shape)
    thumbs = np.concatenate([a, copies, chain, a[20:23]]).clip(0, 255).astype(np.uint8)
    thumbs = thumbs[rng.permutation(len(thumbs))]
    expected = slow_groups(thumbs)
    assert near_groups(thumbs).tolist() == expected
    sizes = np.bincount(expected)
    assert sizes.max() >= 9 and (sizes == 2).sum() >= 8


@pytest.mark.parametrize("count", [0, 1, 2])
def test_groups_of_hardly_any_images(count: int) -> None:
    assert near_groups(smooth(1, count).reshape(count, 16, 16)).tolist() == list(range(count))


def test_many_near_images_are_compared_with_few(compared: list[int]) -> None:
    rng = np.random.default_rng(8)
    frames = smooth(2, 1).astype(int) + rng.integers(-2, 3, (2000, 16, 16))
    assert set(near_groups(frames.clip(0, 255).astype(np.uint8))) == {0}
    assert sum(compared) < 20_000  # of 2 million pairs
