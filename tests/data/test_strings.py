"""Strings in flat arrays behave as a list of strings."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from onetrunk.data.index import Strings

NAMES = ["a", "", "photos/ø.jpg", "日本", "bad\udcffname", "a"]


def test_strings_are_read_back_in_order() -> None:
    strings = Strings(NAMES)
    assert list(strings) == NAMES
    assert len(strings) == len(NAMES)
    assert [strings[i] for i in np.arange(len(NAMES))] == NAMES
    assert list(pickle.loads(pickle.dumps(strings))) == NAMES


def test_negative_positions_and_positions_out_of_range() -> None:
    strings = Strings(NAMES)
    assert strings[-2] == "bad\udcffname"
    for beyond in (len(NAMES), -len(NAMES) - 1):
        with pytest.raises(IndexError):
            strings[beyond]


def test_no_strings_are_an_empty_list() -> None:
    assert list(Strings()) == []
