"""Groups: the source's, those that a pattern finds, copies, and those of renamed folders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onetrunk.data.index import Index, read_index
from onetrunk.data.sources import Item
from onetrunk.data.splitting import SPLITS, groups_of
from onetrunk.data.stratified import NOTHING_KNOWN, KnownSplits
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake


def splits_of(index: Index) -> dict[str, str]:
    return {key: SPLITS[code] for key, code in zip(index.keys, index.split, strict=True)}


def test_copies_share_a_group_unless_the_user_groups_them() -> None:
    items = [
        Item("x1", "x1", "s"),
        Item("x1-2", "x1-2", "s", alike="x1"),
        Item("y1", "y1", "s", group="patient"),
        Item("y1-2", "y1-2", "s", group="patient", alike="y1"),
    ]
    assert groups_of(items, "d", None, []) == [None, "x1", "patient", "patient"]


@pytest.mark.parametrize("copies", [False, True])
def test_a_mistyped_group_is_refused_also_if_there_are_copies(copies: bool) -> None:
    alike = "x" if copies else None
    items = [Item("x", "x", "s"), Item("x-2", "x-2", "s", alike=alike), Item("y", "y", "s")]
    with raises(BadInput, got="patient", available=["image", "patient_id"]):
        groups_of(items, "d", "patient", [], ("image", "patient_id"))


def index_of(
    *folders: str,
    pattern: str | None = None,
    groups: bool = False,
    known: KnownSplits = NOTHING_KNOWN,
) -> Index:
    """The index of 96 objects with two views each in every folder, which names their class."""
    names = [f"{letter}{number}" for letter in "abcdefghijkl" for number in range(8)]
    items = [
        Item(
            f"{folder}/{name}_{view}.jpg",
            "0",
            "s",
            group=f"object {name} of {place}" if groups else None,
            labels={"classify": folder},
        )
        for place, folder in enumerate(folders)
        for name in names
        for view in range(2)
    ]
    return read_index(Fake(CLASSIFY, items), "d", group=pattern, known=known)


CASES: dict[str, tuple[str | None, bool]] = {
    "paths": (None, False),
    "a pattern with the folder": (r"^(.*)_\d", False),
    "a pattern without the folder": (r"([^/]+)_\d", False),
    "the source's groups": (None, True),
}


@pytest.mark.parametrize("case", CASES)
def test_images_of_a_renamed_folder_keep_their_split(case: str) -> None:
    pattern, groups = CASES[case]
    before = index_of("cat", pattern=pattern, groups=groups)
    known = replace(before.assigned, renamed={"feline": "cat"})
    after = splits_of(index_of("feline", pattern=pattern, groups=groups, known=known))
    expected = {key.replace("cat", "feline"): split for key, split in splits_of(before).items()}
    assert after == expected
    if case in ("paths", "a pattern with the folder"):
        fresh = splits_of(index_of("feline", pattern=pattern))
        assert fresh != expected  # otherwise this test shows nothing


@pytest.mark.parametrize("pattern", [None, r"^(.*)_\d"])
def test_images_of_folders_that_changed_names_keep_their_split(pattern: str | None) -> None:
    before = index_of("cat", "dog", pattern=pattern)
    known = replace(before.assigned, renamed={"cat": "dog", "dog": "cat"})
    after = splits_of(index_of("dog", "cat", pattern=pattern, known=known))
    other = {"cat": "dog", "dog": "cat"}
    assert after == {
        f"{other[key[:3]]}{key[3:]}": split for key, split in splits_of(before).items()
    }
