"""Train, val and test: from the source, or by a hash of the group or else the key.

A hash depends only on a name, so new files do not change the split of existing ones, and images of
one group are never in two splits. One exception: if the hash leaves a small class without a
training image, the image whose hash is nearest to train is moved there.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.sources import Item
from onetrunk.errors import BadInput, shorten

SPLITS = ("train", "val", "test")
SHARES = (0.70, 0.15, 0.15)  # of splits by hash
EXAMPLES = 5  # names listed in one message


def share(name: str) -> float:
    """Return a number in [0, 1) that depends only on the name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def groups_of(
    items: list[Item], name: str, pattern: str | None, warnings: list[str]
) -> list[str | None]:
    """Return each item's group: the source's, or the match of the pattern in its key."""
    if pattern is None or any(item.group is not None for item in items):
        return [item.group for item in items]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInput(
            f"{name}: expected a column or a regular expression as group ({error})",
            got=pattern,
            try_="name a column, or write a pattern such as '([^/]+)/' (the folder)",
        ) from None
    matches = [compiled.search(item.key) for item in items]
    if not any(matches):
        raise BadInput(
            f"{name}: group is not a column, and as a pattern it matches none of "
            f"{len(items)} paths",
            got=pattern,
            available=[item.key for item in items[:3]],
        )
    groups = [m and (m.group(1) if m.re.groups else m.group(0)) for m in matches]
    if alone := [item.key for item, g in zip(items, groups, strict=True) if g is None]:
        warnings.append(
            f"group {pattern!r} does not match these paths, which are in no group: "
            f"{shorten(alone, EXAMPLES)}"
        )
    return groups


def split_codes(
    items: list[Item], groups: list[str | None], name: str, errors: list[BadInput]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], str]:
    """Assign each item to a split: as given, or by hash of the group or key.

    Returns:
        The position of each item's split in SPLITS, the hash of the items that were assigned by it
        (1 for the others), and how the splits were made, for messages.
    """
    given = {item.split for item in items}
    if unknown := sorted(str(s) for s in given - {*SPLITS, None}):
        raise BadInput(f"{name}: unknown split", got=unknown[0], available=SPLITS)
    named = given - {None}
    if named and "train" not in named and None not in given:
        raise BadInput(f"{name}: no split is named train", available=sorted(str(s) for s in named))
    missing = [s for s in SPLITS if s not in named]
    shares = dict(zip(SPLITS, SHARES, strict=True))
    codes, hashes = np.zeros(len(items), np.uint8), np.ones(len(items))
    cut = {s: shares[s] / (shares["train"] + sum(shares[m] for m in missing)) for s in missing}
    of_group: dict[str, int] = {}  # the split that the source gives to a group
    for i, (item, group) in enumerate(zip(items, groups, strict=True)):
        u = share(item.key if group is None else group)
        if item.split is None or item.split == "train":
            hashes[i] = u
        if item.split is None:
            codes[i] = 0 if u < SHARES[0] else 1 if u < SHARES[0] + SHARES[1] else 2
        elif item.split == "train" and missing:
            # missing splits get the training images with the largest hashes
            bottom = 1.0
            for s in missing:
                bottom -= cut[s]
                if u >= bottom:
                    codes[i] = SPLITS.index(s)
                    break
        else:
            codes[i] = SPLITS.index(item.split)
        if item.split is not None and group is not None:
            of_group[group] = int(codes[i])
    for i, (item, group) in enumerate(zip(items, groups, strict=True)):
        if item.split is None and group in of_group:
            codes[i] = of_group[group]
            hashes[i] = 1.0
    first: dict[str, int] = {}
    straddling = {
        group
        for group, code in zip(groups, codes.tolist(), strict=True)
        if group is not None and first.setdefault(group, code) != code
    }
    if straddling:
        errors.append(
            BadInput(
                f"{name}: groups are in several of the source's splits",
                got=shorten(sorted(straddling), EXAMPLES),
                try_="leave out the split column or the group",
            )
        )
    unit = "group" if any(g is not None for g in groups) else "path"
    if not named:
        return codes, hashes, f"70/15/15 by hash of the {unit}"
    how = "from the source"
    if missing and "train" in named:
        how += f"; {' and '.join(missing)} cut from train by hash of the {unit}"
    if None in given:
        how += f"; items without a split 70/15/15 by hash of the {unit}"
    return codes, hashes, how


def move_nearest(
    members: NDArray[np.bool_], codes: NDArray[np.uint8], hashes: NDArray[np.float64]
) -> bool:
    """Move the member of a class whose hash is nearest to train there, with its group.

    Returns False if no member was assigned by hash.
    """
    nearest = hashes[members].min(initial=1.0)
    if nearest == 1.0:
        return False
    codes[hashes == nearest] = 0  # a group shares its hash
    return True
