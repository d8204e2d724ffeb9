"""Splits that a run keeps: written, read, and refused if damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.kept_splits import FILE, read_splits, save_splits, splits_of
from onetrunk.data.stratified import KnownSplits
from onetrunk.errors import BadInput
from onetrunk.store.tensors import KEY, write_tensors
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, labelled

KNOWN = KnownSplits.of(np.array([2**64 - 1, 3, 8], np.uint64), np.array([2, 0, 1], np.uint8))
EMPTY = KnownSplits.of(np.zeros(0, np.uint64), np.zeros(0, np.uint8))


def test_splits_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_splits(tmp_path, {"shop": KNOWN, "named": EMPTY})
    found = read_splits(tmp_path)
    assert list(found) == ["shop"]
    np.testing.assert_array_equal(found["shop"].units, KNOWN.units)
    np.testing.assert_array_equal(found["shop"].codes, KNOWN.codes)


def test_without_splits_by_hash_no_file_is_written(tmp_path: Path) -> None:
    save_splits(tmp_path, {"named": EMPTY})
    assert list(tmp_path.iterdir()) == []
    assert read_splits(tmp_path) == {}


def test_those_of_an_update_have_priority_over_those_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "added/shop").mkdir(parents=True)
    save_splits(tmp_path, {"shop": KNOWN, "parts": KNOWN})
    later = KnownSplits.of(np.array([4], np.uint64), np.array([1], np.uint8))
    save_splits(tmp_path / "added/shop", {"shop": later})
    assert splits_of(tmp_path, "shop").units.tolist() == [4]
    assert splits_of(tmp_path, "parts").units.tolist() == KNOWN.units.tolist()
    assert len(splits_of(tmp_path, "new").units) == 0


BAD = {
    "codes are missing": {"shop/units": torch.zeros(2, dtype=torch.uint64)},
    "other lengths": {
        "shop/units": torch.zeros(2, dtype=torch.uint64),
        "shop/codes": torch.zeros(3, dtype=torch.uint8),
    },
    "another type": {
        "shop/units": torch.zeros(2, dtype=torch.int64),
        "shop/codes": torch.zeros(2, dtype=torch.uint8),
    },
    "an unknown split": {
        "shop/units": torch.zeros(2, dtype=torch.uint64),
        "shop/codes": torch.full((2,), 3, dtype=torch.uint8),
    },
    "a name that is none": {
        "../x/units": torch.zeros(2, dtype=torch.uint64),
        "../x/codes": torch.zeros(2, dtype=torch.uint8),
    },
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        write_tensors(file, BAD[name], {KEY: '{"format": 1}'})
    with raises(BadInput, FILE, try_="restore"):
        read_splits(tmp_path)


def test_a_file_of_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nonsense")
    with raises(BadInput, FILE, try_="restore"):
        read_splits(tmp_path)


def test_a_domain_keeps_known_splits_and_remembers_images_that_are_gone() -> None:
    def domain(first: int, last: int) -> Domain:
        items = labelled(last, splits=(None,))[first:]
        return Domain("d", Fake(CLASSIFY, items), size=4)

    before = domain(0, 60)
    less = domain(20, 60).keeping(before.assigned)
    again = domain(0, 90).keeping(less.assigned)
    assert again.index.split[:60].tolist() == before.index.split.tolist()
    fresh = domain(0, 90).index.split[:60].tolist()
    assert fresh != before.index.split.tolist()  # otherwise this test shows nothing
    assert before.keeping(EMPTY) is before
