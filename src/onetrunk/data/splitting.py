"""Train, val and test: as the source names them, otherwise by hash within each class.

This file finds the groups and the units of a source, and says how its splits were made;
`stratified` assigns them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.sources import Item
from onetrunk.data.stratified import LEFT_OUT, NOT_GIVEN, TRAIN, Codes, Units
from onetrunk.errors import BadInput, shorten

SPLITS = ("train", "val", "test")
EXAMPLES = 5  # names listed in one message


def hash_of(name: str) -> int:
    """Return a number below 2⁶⁴ that depends only on the name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def groups_of(
    items: list[Item],
    name: str,
    pattern: str | None,
    warnings: list[str],
    columns: Sequence[str] = (),
) -> list[str | None]:
    """Return each item's group: the source's, or the match of the pattern in its key.

    Copies of one image that are in no group are a group of their own.

    Args:
        pattern: A column of the source, or a regular expression.
        columns: The columns of the source, for messages.
    """
    groups = [item.group for item in items]
    if is_pattern(items, pattern, columns):
        groups = _matches(items, name, str(pattern), warnings, columns)
    return [item.alike if g is None else g for item, g in zip(items, groups, strict=True)]


def is_pattern(items: list[Item], group: str | None, columns: Sequence[str]) -> bool:
    """Return whether the setting `group` is a pattern, and not what the source groups by."""
    if group is None or group in columns:
        return False
    return all(item.group is None for item in items)


def group_in(key: str, pattern: re.Pattern[str]) -> str | None:
    """Return the group that a pattern finds in a key."""
    match = pattern.search(key)
    if match is None:
        return None
    group: str | None = match.group(1) if pattern.groups else match.group(0)
    return group


def _matches(
    items: list[Item], name: str, pattern: str, warnings: list[str], columns: Sequence[str]
) -> list[str | None]:
    """Return the group that the pattern finds in each key; raise BadInput if it finds none."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInput(
            f"{name}: expected a column or a regular expression as group ({error})",
            got=pattern,
            try_="name a column, or write a pattern such as '([^/]+)/' (the folder)",
        ) from None
    groups = [group_in(item.key, compiled) for item in items]
    if all(group is None for group in groups):
        raise BadInput(
            f"{name}: group is not a column, and as a pattern it matches none of "
            f"{len(items)} paths",
            got=pattern,
            available=columns or [item.key for item in items[:3]],
        )
    count = sum(group is not None for group in groups)
    if count > 1 and len(set(groups) - {None}) == 1:  # more likely a mistyped column
        raise BadInput(
            f"{name}: group is not a column, and as a pattern it puts {count} of {len(items)} "
            "images into one group",
            got=pattern,
            available=columns or [item.key for item in items[:3]],
            try_="a column, or a pattern that differs between groups, such as '([^/]+)/'",
        )
    if alone := [item.key for item, g in zip(items, groups, strict=True) if g is None]:
        warnings.append(
            f"group {pattern!r} does not match these paths, which are in no group: "
            f"{shorten(alone, EXAMPLES)}"
        )
    return groups


def given_splits(items: list[Item], name: str) -> Codes:
    """Return the split that the source gives to each item; NOT_GIVEN without one."""
    given = {item.split for item in items}
    if unknown := sorted(str(s) for s in given - {*SPLITS, None}):
        raise BadInput(f"{name}: unknown split", got=unknown[0], available=SPLITS)
    named = given - {None}
    if named and "train" not in named and None not in given:
        raise BadInput(f"{name}: no split is named train", available=sorted(str(s) for s in named))
    return np.array(
        [NOT_GIVEN if item.split is None else SPLITS.index(item.split) for item in items], np.uint8
    )


def units_of(items: list[Item], groups: Sequence[str | None]) -> Units:
    """Return the unit of each item: a hash of its group, or else of its key."""
    return np.array(
        [
            hash_of(item.key if group is None else group)
            for item, group in zip(items, groups, strict=True)
        ],
        np.uint64,
    )


def check_groups(
    groups: Sequence[str | None], given: Codes, name: str, errors: list[BadInput]
) -> None:
    """Append an error if the source puts the images of a group into several splits."""
    first: dict[str, int] = {}
    straddling = {
        group
        for group, code in zip(groups, given.tolist(), strict=True)
        if group is not None and code != NOT_GIVEN and first.setdefault(group, code) != code
    }
    if straddling:
        errors.append(
            BadInput(
                f"{name}: groups are in several of the source's splits",
                got=shorten(sorted(straddling), EXAMPLES),
                try_="leave out the split column or the group",
            )
        )


def describe(given: Codes, unit: str, classes: bool) -> str:
    """Describe how the splits were made.

    Args:
        unit: "path" or "group".
        classes: Whether each class is divided by itself.
    """
    by_hash = f"by hash of the {unit}" + (" in each class" if classes else "")
    named = {SPLITS[code] for code in np.unique(given).tolist() if code < LEFT_OUT}
    if not named:
        return f"70/15/15 {by_hash}"
    how = "from the source"
    missing = [s for s in SPLITS if s not in named]
    if missing and "train" in named:
        how += f"; {' and '.join(missing)} cut from train {by_hash}"
    if (given == NOT_GIVEN).any():
        how += f"; items without a split 70/15/15 {by_hash}"
    return how


def move_to_train(
    members: NDArray[np.bool_], codes: Codes, units: Units, by_hash: NDArray[np.bool_]
) -> bool:
    """Move the unit with the smallest hash that contains members of a class to train.

    Returns False if no member was assigned by hash.
    """
    movable = members & by_hash & (codes != LEFT_OUT)
    if not movable.any():
        return False
    codes[by_hash & (units == units[movable].min()) & (codes != LEFT_OUT)] = TRAIN
    return True
