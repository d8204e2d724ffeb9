"""Train, val and test: as the source names them, or by hash of the group, else of the path.

A hash depends on a name alone, so adding files never moves old ones, and one item's five
photographs, which share a group, never straddle splits. One exception: of a class of few images
that the hash leaves without one to learn from, the one nearest to train learns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.sources import Item
from onetrunk.errors import BadInput

SPLITS = ("train", "val", "test")
SHARES = (0.70, 0.15, 0.15)  # of the splits made by hash
SHOWN = 5  # examples that a message lists


def share(unit: str) -> float:
    """A number in [0, 1) that depends on the name alone: adding files never moves old ones."""
    digest = hashlib.blake2b(unit.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def groups_of(
    items: list[Item], name: str, pattern: str | None, warnings: list[str]
) -> list[str | None]:
    """Each item's group: the source's own, or what the pattern finds in its key."""
    if pattern is None or any(item.group is not None for item in items):
        return [item.group for item in items]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInput(
            f"{name}: group is no column, and no regular expression either ({error})",
            got=pattern,
            try_="name a column, or write a pattern such as '([^/]+)/' (the folder)",
        ) from None
    found = [compiled.search(item.key) for item in items]
    if not any(found):
        raise BadInput(
            f"{name}: group is no column, and as a pattern it matches none of {len(items)} paths",
            got=pattern,
            available=[item.key for item in items[:3]],
        )
    groups = [m and (m.group(1) if m.re.groups else m.group(0)) for m in found]
    alone = [item.key for item, g in zip(items, groups, strict=True) if g is None]
    if alone:
        warnings.append(listed(f"group {pattern!r} matches not all paths, each is alone", alone))
    return groups


def split_codes(
    items: list[Item], groups: list[str | None], name: str, problems: list[str]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], str]:
    """A split for every item: as given; by hash of the group (of the key) where none is given.

    The second array has the hash of the items that went by it, and 1 of the others.
    """
    given = {item.split for item in items}
    unknown = sorted(str(s) for s in given - {*SPLITS, None})
    if unknown:
        raise BadInput(f"{name}: unknown split", got=unknown[0], available=SPLITS)
    names = given - {None}
    if names and "train" not in names and None not in given:
        raise BadInput(f"{name}: no split is called train", available=sorted(str(s) for s in names))
    missing = [s for s in SPLITS if s not in names]
    shares = dict(zip(SPLITS, SHARES, strict=True))
    unit = "group" if any(g is not None for g in groups) else "path"
    codes, hashed = np.zeros(len(items), np.uint8), np.ones(len(items))
    cut = {s: shares[s] / (shares["train"] + sum(shares[m] for m in missing)) for s in missing}
    named: dict[str, int] = {}  # a group's split where the source names one
    for i, item in enumerate(items):
        u = share(groups[i] if groups[i] is not None else item.key)  # type: ignore[arg-type]
        if item.split is None or item.split == "train":
            hashed[i] = u
        if item.split is None:
            codes[i] = 0 if u < SHARES[0] else 1 if u < SHARES[0] + SHARES[1] else 2
        elif item.split == "train" and missing:
            # what the source lacks is cut from the top of its training images
            bottom = 1.0
            for s in missing:
                bottom -= cut[s]
                if u >= bottom:
                    codes[i] = SPLITS.index(s)
                    break
        else:
            codes[i] = SPLITS.index(item.split)
        if item.split is not None and groups[i] is not None:
            named[groups[i]] = int(codes[i])  # type: ignore[index]
    for i, item in enumerate(items):
        if item.split is None and groups[i] in named:
            codes[i] = named[groups[i]]  # type: ignore[index]
            hashed[i] = 1.0
    seen: dict[str, int] = {}
    straddling = {
        g
        for g, code in zip(groups, codes.tolist(), strict=True)
        if g is not None and seen.setdefault(g, code) != code
    }
    if straddling:
        problems.append(
            listed("groups straddle the splits that the source names", sorted(straddling))
            + "; try: drop the split column or the group"
        )
    if not names:
        return codes, hashed, f"70/15/15 by hash of the {unit}"
    how = "as the source names them"
    if missing and "train" in names:
        how += f"; {' and '.join(missing)} cut from train by hash of the {unit}"
    if None in given:
        how += f"; items without one 70/15/15 by hash of the {unit}"
    return codes, hashed, how


def move_nearest(
    own: NDArray[np.bool_], codes: NDArray[np.uint8], hashed: NDArray[np.float64]
) -> bool:
    """Move to train what of these items, a class, is nearest to it by hash, with its group.

    False where none of them went by hash.
    """
    nearest = hashed[own].min(initial=1.0)
    if nearest == 1.0:
        return False
    codes[hashed == nearest] = 0  # what shares a group shares the hash
    return True


def listed(what: str, names: Sequence[str]) -> str:
    """What is wrong, and the first few names that it concerns."""
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{more}"
