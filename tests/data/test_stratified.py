"""Stratified splits: the cuts of one class against a search over all cuts, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onetrunk.data.stratified import (
    LARGE,
    NOT_GIVEN,
    SHARES,
    TEST,
    TRAIN,
    VAL,
    KnownSplits,
    assign,
    fill,
)

WITHOUT_TEST = np.array([0.7, 0.15, 0.0]) / 0.85
NONE = np.zeros(3)


def slow_cuts(sizes: list[int], shares: np.ndarray) -> list[list[int]]:
    """The images per split of all divisions whose two cuts are nearest to the shares."""
    lacking = [s for s in (TRAIN, TEST, VAL) if shares[s] > 0][: len(sizes)]
    total, ends = sum(sizes), np.concatenate([[0], np.cumsum(sizes)])
    wanted = total * np.cumsum(shares)

    def counts(first: int, second: int) -> list[int]:
        return [int(c) for c in np.diff([0, ends[first], ends[second], total])]

    def gap(cut: int, goal: float) -> float:
        return round(abs(float(ends[cut]) - goal), 6)

    n = len(sizes)
    fine = [
        (a, b)
        for a in range(n + 1)
        for b in range(a, n + 1)
        if all((a, b - a, n - b)[s] > 0 for s in lacking)
    ]
    best = min(gap(a, wanted[0]) for a, _ in fine)
    fine = [(a, b) for a, b in fine if gap(a, wanted[0]) == best]
    result = []
    for first in {a for a, _ in fine}:
        rest = [b for a, b in fine if a == first]
        least = min(gap(b, wanted[1]) for b in rest)
        result += [counts(first, b) for b in rest if gap(b, wanted[1]) == least]
    return result


@pytest.mark.parametrize("shares", [np.array(SHARES), WITHOUT_TEST], ids=["three", "two"])
@settings(deadline=None, max_examples=50)
@given(
    sizes=st.one_of(
        st.integers(1, 60).map(lambda n: [1] * n),
        st.lists(st.integers(1, 6), min_size=25, max_size=40),
    ),
    coin=st.booleans(),
)
def test_cuts_are_the_nearest_of_all(sizes: list[int], coin: bool, shares: np.ndarray) -> None:
    codes = fill(np.array(sizes), shares, NONE, coin)
    assert (np.diff(codes) >= 0).all()
    counts = np.bincount(codes, np.array(sizes), minlength=3).astype(int).tolist()
    assert counts in slow_cuts(sizes, shares)


def test_small_classes() -> None:
    for count, expected in ((1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (4, [2, 1, 1])):
        codes = fill(np.ones(count, int), np.array(SHARES), NONE)
        assert np.bincount(codes, minlength=3).tolist() == expected
    pair = fill(np.ones(2, int), WITHOUT_TEST, NONE)
    assert pair.tolist() == [TRAIN, VAL]


def test_a_tie_goes_to_either_side_by_the_coin() -> None:
    for coin, expected in ((False, [7, 1, 2]), (True, [7, 2, 1])):
        codes = fill(np.ones(10, int), np.array(SHARES), NONE, coin)
        assert np.bincount(codes).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=3, max_size=12),
    have=st.lists(st.integers(0, 30), min_size=3, max_size=3),
)
def test_large_groups_are_trained_on_and_no_split_stays_empty(
    sizes: list[int], have: list[int]
) -> None:
    codes = fill(np.array(sizes), np.array(SHARES), np.array(have, float))
    images = np.array(have) + np.bincount(codes, np.array(sizes), minlength=3)
    assert (images > 0).all()
    largest = int(np.argmax(sizes))
    others = [size for i, size in enumerate(sizes) if i != largest]
    if sizes[largest] > LARGE * (sum(sizes) + sum(have)) and sizes[largest] > max(others):
        assert codes[largest] == TRAIN


def random_units(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def drawn(
    units: np.ndarray, known: KnownSplits | None = None, strata: np.ndarray | None = None
) -> np.ndarray:
    count = len(units)
    found = np.full(count, NOT_GIVEN, np.uint8) if known is None else known.find(units)
    given_ = np.full(count, NOT_GIVEN, np.uint8)
    strata = np.zeros(count, np.int64) if strata is None else strata
    codes, by_hash = assign(units, given_, strata, np.array([False] * 3), found)
    assert by_hash.all()
    return codes


@settings(deadline=None, max_examples=50)
@given(
    old=st.integers(1, 60),
    new=st.integers(0, 60),
    seed=st.integers(0, 5),
    classes=st.integers(1, 3),
)
def test_known_units_keep_their_split_and_the_rest_comes_close_to_the_shares(
    old: int, new: int, seed: int, classes: int
) -> None:
    units = random_units(old + new, seed)
    strata = np.arange(old + new) % classes
    before = drawn(units[:old], strata=strata[:old])
    after = drawn(units, KnownSplits.of(units[:old], before), strata)
    np.testing.assert_array_equal(after[:old], before)
    for stratum in range(classes):
        counts = np.bincount(after[strata == stratum], minlength=3)
        if counts.sum() > 2:
            assert (counts > 0).all()
        if new == 0:
            fresh = np.bincount(before[strata[:old] == stratum], minlength=3)
            np.testing.assert_array_equal(counts, fresh)
        assert np.abs(counts - counts.sum() * np.array(SHARES)).max() <= 2.0


def test_growing_moves_few_units_and_none_from_train_to_test() -> None:
    moved = []
    for seed in range(50):
        units = random_units(200, seed)
        before, after = drawn(units[:100]), drawn(units)[:100]
        moved.append((before != after).mean())
        assert not ((before == TRAIN) & (after == TEST)).any()
        assert not ((before == TEST) & (after == TRAIN)).any()
    assert 0.02 < np.mean(moved) < 0.08  # about 5 %, and 46 % of a fresh random division


def test_a_unit_that_was_in_two_splits_is_not_tested_on() -> None:
    units = np.array([7, 7, 8, 9, 10], np.uint64)
    known = np.array([TEST, TRAIN, NOT_GIVEN, NOT_GIVEN, NOT_GIVEN], np.uint8)
    given_ = np.full(5, NOT_GIVEN, np.uint8)
    codes, _ = assign(units, given_, np.zeros(5, np.int64), np.array([False]), known)
    assert codes[:2].tolist() == [TRAIN, TRAIN]


def test_known_splits_are_found_by_unit_and_merged() -> None:
    first = KnownSplits.of(np.array([5, 3], np.uint64), np.array([TEST, VAL], np.uint8))
    second = KnownSplits.of(np.array([3, 9], np.uint64), np.array([TRAIN, TRAIN], np.uint8))
    units = np.array([9, 3, 4, 5], np.uint64)
    assert first.find(units).tolist() == [NOT_GIVEN, VAL, NOT_GIVEN, TEST]
    assert first.merged(second).find(units).tolist() == [TRAIN, VAL, NOT_GIVEN, TEST]
