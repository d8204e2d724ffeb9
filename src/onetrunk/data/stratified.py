"""Stratified splits by hash: each class is divided 70/15/15, and a unit is never divided.

A unit is an image, or all images of a group. The units of a class are ordered by their hash, and
the splits are cut from this order at the shares of their images: train, then val, then test. So the
result does not depend on the order of a list, and new images shift the two cuts only a little.

scikit-learn's `StratifiedShuffleSplit` and `StratifiedGroupKFold` are not used: both depend on the
order of the rows, and an added image moves most of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SHARES = (0.70, 0.15, 0.15)  # of train, val and test
TRAIN, VAL, TEST = 0, 1, 2
LEFT_OUT = 3  # an image that is in no split
NOT_GIVEN = 255  # the source names no split
PRIORITY = (TRAIN, TEST, VAL)  # of the splits, for a class with fewer than three units
LARGE = 0.3  # a group with a larger share of its class is always trained on
TIE = 1e-9

Units = NDArray[np.uint64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class KnownSplits:
    """The splits of units that were assigned before, which keep them.

    Attributes:
        units: Hashes of units, in rising order.
        codes: The split of each.
        renamed: Parts of paths that have changed since, from new to old: a renamed class folder.
    """

    units: Units
    codes: Codes
    renamed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, units: Units, codes: Codes) -> KnownSplits:
        """Return the splits of units in any order; of equal units, the first counts."""
        unique, first = np.unique(units, return_index=True)
        return cls(unique, codes[first].astype(np.uint8))

    def find(self, units: Units) -> Codes:
        """Return the split of each unit, or NOT_GIVEN."""
        found = np.full(len(units), NOT_GIVEN, np.uint8)
        if len(self.units):
            at = np.minimum(np.searchsorted(self.units, units), len(self.units) - 1)
            same = self.units[at] == units
            found[same] = self.codes[at[same]]
        return found

    def merged(self, older: KnownSplits) -> KnownSplits:
        """Return these splits and those of further units in `older`."""
        return KnownSplits.of(
            np.concatenate([self.units, older.units]), np.concatenate([self.codes, older.codes])
        )


NOTHING_KNOWN = KnownSplits(np.zeros(0, np.uint64), np.zeros(0, np.uint8))


def assign(
    units: Units,
    given: Codes,
    strata: NDArray[np.int64],
    coins: NDArray[np.bool_],
    known: Codes,
) -> tuple[Codes, NDArray[np.bool_]]:
    """Assign each image to a split.

    Images with a given split keep it, except that splits which no image has are cut from train. An
    image without a split follows the other images of its unit that have one.

    Args:
        units: The unit of each image.
        given: The split that the source gives to each image, or NOT_GIVEN.
        strata: The class of each image, as a place in `coins`.
        coins: For each class, which split gets a unit that both have an equal claim to.
        known: The split that each image was assigned before, or NOT_GIVEN. (Of a unit with several,
            the first, so that no image that was trained on is tested on.)

    Returns:
        The split of each image, and which images were assigned by hash.
    """
    codes = given.copy()
    named = set(np.unique(given).tolist()) - {NOT_GIVEN}
    missing = [s for s in (VAL, TEST) if s not in named]
    cut_train = bool(missing) and TRAIN in named
    # shares of the units that the source puts into train, and of those without a split
    of_train = np.array([SHARES[s] if s == TRAIN or s in missing else 0.0 for s in range(3)])
    of_train /= of_train.sum()

    unique, inverse = np.unique(units, return_inverse=True)
    count = len(unique)
    fixed = (given != NOT_GIVEN) & ~((given == TRAIN) & cut_train)
    place = np.full(count, NOT_GIVEN, np.uint8)  # the split that the source gives to a unit
    np.minimum.at(place, inverse[fixed], given[fixed])
    trained = np.zeros(count, bool)
    trained[inverse[given == TRAIN]] = True
    free = given == NOT_GIVEN
    codes[free] = place[inverse[free]]

    drawn = np.flatnonzero(place == NOT_GIVEN)  # units
    if len(drawn) == 0:
        return codes, np.zeros(len(codes), bool)
    sizes = np.bincount(inverse, minlength=count)
    stratum = majority(inverse, strata, count)
    before = np.full(count, NOT_GIVEN, np.uint8)
    np.minimum.at(before, inverse, known)
    pool = (trained & cut_train).astype(np.int64)
    unit_codes = place.copy()
    order = drawn[np.lexsort((unique[drawn], stratum[drawn], pool[drawn]))]
    key = np.stack([pool[order], stratum[order]])
    breaks = np.flatnonzero((key[:, 1:] != key[:, :-1]).any(0)) + 1
    for members in np.split(order, breaks):
        shares = of_train if pool[members[0]] else np.array(SHARES)
        allowed = before[members] != NOT_GIVEN
        allowed[allowed] = shares[before[members[allowed]]] > 0
        old, new = members[allowed], members[~allowed]
        unit_codes[old] = before[old]
        have = np.bincount(before[old], sizes[old], minlength=3).astype(np.float64)
        if len(new):
            unit_codes[new] = fill(sizes[new], shares, have, bool(coins[stratum[members[0]]]))
    by_hash = place[inverse] == NOT_GIVEN
    codes[by_hash] = unit_codes[inverse[by_hash]]
    return codes, by_hash


def majority(
    inverse: NDArray[np.int64], strata: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the most frequent class of the images of each unit; in a tie, the first class."""
    width = int(strata.max(initial=0)) + 1
    pairs, images = np.unique(inverse * width + strata, return_counts=True)
    unit, stratum = pairs // width, pairs % width
    order = np.lexsort((stratum, -images, unit))
    first = np.unique(unit[order], return_index=True)[1]
    result: NDArray[np.int64] = np.zeros(count, np.int64)
    result[unit[order][first]] = stratum[order][first]
    return result


def fill(
    sizes: NDArray[np.int64],
    shares: NDArray[np.float64],
    have: NDArray[np.float64],
    coin: bool = False,
) -> Codes:
    """Return the splits of the new units of one class.

    Every split gets at least one unit if there are enough, else first train, then test. Apart from
    that, the cuts are where the images come closest to the shares. A large group goes to train.

    Args:
        sizes: The images of each unit, in the order of their hashes.
        shares: Of train, val and test.
        have: The images that each split has of this class already.
        coin: Whether a unit halfway between two splits goes to the first one.
    """
    count = len(sizes)
    codes = np.full(count, TRAIN, np.uint8)
    lacking = [s for s in PRIORITY if shares[s] > 0 and have[s] == 0][:count]
    least = np.array([int(s in lacking) for s in range(3)])
    total = float(sizes.sum() + have.sum())
    rest = np.ones(count, bool)  # those that are not placed yet
    if sizes.min() < sizes.max():
        largest = np.argsort(-sizes, kind="stable")[: count - int(least[1:].sum())]
        rest[largest[sizes[largest] > LARGE * total]] = False
        if not rest.all():
            have = have + np.array([sizes[~rest].sum(), 0.0, 0.0])
            least[TRAIN] = 0
    left = np.flatnonzero(rest)
    need = np.maximum(shares * total - have, 0)
    need *= sizes[left].sum() / need.sum() if need.sum() > 0 else 0
    ends = np.concatenate([[0], np.cumsum(sizes[left])])
    n, val, test = len(left), int(least[VAL]), int(least[TEST])
    first = min(max(nearest(ends, float(need[0]), coin), int(least[TRAIN])), n - val - test)
    second = nearest(ends, float(need[0] + need[1]), coin)
    second = min(max(second, first + val), n - test)
    codes[left[first:second]] = VAL
    codes[left[second:]] = TEST
    return codes


def nearest(ends: NDArray[np.int64], wanted: float, coin: bool) -> int:
    """Return the place of the number nearest to `wanted`; in a tie, the larger one for `coin`."""
    above = min(int(np.searchsorted(ends, wanted - TIE)), len(ends) - 1)
    if above == 0:
        return 0
    over, under = float(ends[above] - wanted), float(wanted - ends[above - 1])
    if abs(over - under) < TIE:
        return above if coin else above - 1
    return above if over < under else above - 1
