"""What a domain does with duplicates: group them, leave them out, or leave them as they are.

The images of a group are identical or near duplicates of each other (see `duplicates`), directly or
through other images of the group. A conflict is the same content under two labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.duplicates import BITS, difference_hash, is_near, near_groups
from onetrunk.data.index import Index, divided
from onetrunk.data.stored_images import BLANK, GOOD
from onetrunk.data.stratified import NOT_GIVEN, TEST, TRAIN, VAL, KnownSplits
from onetrunk.data.task import NO_CLASS
from onetrunk.display import plural

LARGE = 0.1  # of all images; a larger group is reported
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DuplicateGroups:
    """The duplicates among the images of a source, by their rows in the index.

    Attributes:
        first: For each image, the first image of its group; alone, itself.
        content: For each image, the first image with the same content.
        extra: For each image, the image of its group that is kept in its place, which is identical
            or near and has the same labels; -1 if the image itself is kept.
        conflict: Images whose content occurs with another label.
    """

    first: Rows
    content: Rows
    extra: Rows
    conflict: Mask

    def groups(self) -> Iterator[Rows]:
        """Yield the rows of each group of several images."""
        yield from groups_in(self.first)

    def conflicts(self) -> Iterator[Rows]:
        """Yield the rows of each content that has several labels."""
        rows = np.flatnonzero(self.conflict)
        for part in groups_in(self.content[rows]):
            yield rows[part]


def shared_with_train(index: Index, records: NDArray[np.void], used: Mask) -> list[str]:
    """Return a line for each split that the source names and that has images of its train.

    Args:
        records: Those of the decoded images.
        used: The images that are readable and in a split.
    """
    if "digest" not in (records.dtype.names or ()):  # a sample, which stands for other images
        return []
    if not np.isin(index.given, (VAL, TEST)).any():
        return []
    digests = np.ascontiguousarray(records["digest"]).reshape(-1, 2)
    contents = np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1)
    trained = contents[used & (index.given == TRAIN)]
    lines = []
    for code, split in ((VAL, "val"), (TEST, "test")):
        rows = np.flatnonzero(used & (index.given == code))
        shared = rows[np.isin(contents[rows], trained)]
        if len(shared):
            lines.append(
                f"{len(shared):,} of {plural(len(rows), f'{split} image')} "
                f"{'is' if len(shared) == 1 else 'are'} also in train, so scores on {split} do not "
                f"show how well new images are recognized; first: {index.keys[shared[0]]}"
            )
    return lines


def find_duplicates(index: Index, records: NDArray[np.void]) -> DuplicateGroups:
    """Find duplicates from the records of decoded images; nothing is decoded again."""
    count = len(index)
    good = records["status"] == GOOD
    first, content = np.arange(count), np.arange(count)
    rows = np.flatnonzero(good)
    if len(rows):
        digests = np.ascontiguousarray(records["digest"][rows]).view("V16").reshape(-1)
        _, where, inverse = np.unique(digests, return_index=True, return_inverse=True)
        content[rows] = rows[where[inverse]]
        first[rows] = content[rows]
        # one image of each content; all blank images are alike, and they are listed as suspicious
        single = rows[where]
        single = np.sort(single[records["flags"][single] & BLANK == 0])
        root = np.arange(count)
        root[single] = single[near_groups(records["thumb"][single])]
        first = root[first]
        first[~good] = np.flatnonzero(~good)
    conflict = _conflicts(index, content, good)
    return DuplicateGroups(first, content, _extra(index, records, first, conflict), conflict)


def resolve(
    index: Index,
    found: DuplicateGroups,
    name: str,
    *,
    together: bool,
    drop: bool,
    drop_conflicts: bool,
    known: KnownSplits,
    unlabelled: bool = False,
) -> Index:
    """Return the index with other splits.

    Args:
        index: The index of all images.
        found: Its duplicates.
        name: The name of the domain, for messages.
        together: Keep each group in one split.
        drop: Leave out the images of a group that another one replaces.
        drop_conflicts: Leave out the images of conflicts.
        known: The splits of images that were assigned before.
        unlabelled: Whether the source has no labels by design.
    """
    left_out = np.zeros(len(index), np.bool_)
    notes = []
    if drop_conflicts and found.conflict.any():
        left_out |= found.conflict
        contents = sum(1 for _ in found.conflicts())
        notes.append(
            f"conflicts: {int(found.conflict.sum()):,} images are left out, because their content "
            f"occurs under several labels ({contents:,} contents)"
        )
    if drop and (extra := (found.extra >= 0) & ~left_out).any():
        left_out |= extra
        notes.append(
            f"duplicates: {int(extra.sum()):,} images are left out, for each of which an identical "
            "or near one with the same labels is kept"
        )
    joined = None
    if together:
        joined = _joined_units(index, found.first, left_out)
        notes += _notes(index, found, left_out)
    new = divided(index, name, known, joined, left_out, unlabelled)
    new.warnings[len(index.notes) : len(index.notes)] = notes
    if left_out.any():
        new.how += f"; {plural(int(left_out.sum()), 'image')} left out"
    return new


def straddling(index: Index, found: DuplicateGroups, left_out: Mask | None = None) -> list[Rows]:
    """Return the groups that the source puts into several of its own splits."""
    used = index.given != NOT_GIVEN
    used &= True if left_out is None else ~left_out
    rows = np.flatnonzero(used)
    groups = (rows[part] for part in groups_in(found.first[rows]))
    return [group for group in groups if len(np.unique(index.given[group])) > 1]


def groups_in(keys: Rows) -> Iterator[Rows]:
    """Yield the places of each key that occurs several times, in order."""
    order = np.argsort(keys, kind="stable")
    breaks = np.flatnonzero(np.diff(keys[order])) + 1
    for part in np.split(order, breaks):
        if len(part) > 1:
            yield part


def _conflicts(index: Index, content: Rows, good: Mask) -> Mask:
    """Return the labelled images whose content has another label too."""
    found = np.zeros(len(index), np.bool_)
    for column in index.labels.values():
        if column.ndim > 1:
            continue
        rows = np.flatnonzero(good & (column != NO_CLASS))
        low = np.full(len(index), np.iinfo(np.int64).max)
        high = np.full(len(index), -1)
        np.minimum.at(low, content[rows], column[rows])
        np.maximum.at(high, content[rows], column[rows])
        found[rows] |= low[content[rows]] != high[content[rows]]
    return found


def _extra(index: Index, records: NDArray[np.void], first: Rows, conflict: Mask) -> Rows:
    """Return for each image that can be left out the one that is kept, else -1.

    An image is left out if it is near one that is kept and has the same labels. Of the images of a
    group, those that the source puts into test are kept before those of val and the others, so that
    test sets stay comparable; apart from that, the first one is.
    """
    extra = np.full(len(index), -1, np.int64)
    labels = _label_numbers(index)
    late = np.full(len(index), 2)
    late[index.given == VAL], late[index.given == TEST] = 1, 0
    for group in groups_in(first):
        thumbs = records["thumb"][group]
        hashes = difference_hash(thumbs)
        kept: list[int] = []  # places in the group
        for place in np.lexsort((group, late[group])).tolist():
            row = group[place]
            if conflict[row]:
                continue  # which label is right is not known
            others = np.array([k for k in kept if labels[group[k]] == labels[row]], np.int64)
            others = others[np.bitwise_count(hashes[others] ^ hashes[place]) <= BITS]
            others = others[is_near(thumbs, others, thumbs[place])]
            if len(others):
                extra[row] = group[others[0]]
            else:
                kept.append(place)
    return extra


def _label_numbers(index: Index) -> Rows:
    """Return a number for each image, which is equal for images with equal labels of all tasks."""
    columns = [
        np.ascontiguousarray(column.reshape(len(index), -1)).view(np.uint8)
        for column in index.labels.values()
    ]
    if not columns:
        return np.zeros(len(index), np.int64)
    rows = np.ascontiguousarray(np.concatenate(columns, 1))
    whole = rows.view(f"V{rows.shape[1]}").reshape(-1)
    numbers: Rows = np.unique(whole, return_inverse=True)[1].astype(np.int64)
    return numbers


def _joined_units(index: Index, first: Rows, left_out: Mask) -> NDArray[np.uint64]:
    """Return the units of the images after joining those that share a group of duplicates."""
    unit = np.unique(index.units, return_inverse=True)[1]
    group = np.where(left_out, len(index) + np.arange(len(index)), first)  # it joins nothing
    group = np.unique(group, return_inverse=True)[1]
    label = np.arange(len(index))
    while True:  # the smallest row spreads through units and groups
        before = label
        for part in (unit, group):
            smallest = np.full(part.max(initial=0) + 1, len(index))
            np.minimum.at(smallest, part, label)
            label = smallest[part]
        if (label == before).all():
            break
    joined = np.full(len(index), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(joined, label, index.units)
    return joined[label]


def _notes(index: Index, found: DuplicateGroups, left_out: Mask) -> list[str]:
    used = np.flatnonzero(~left_out)
    sizes = [len(group) for group in groups_in(found.first[used])]
    notes = []
    if sizes:
        notes.append(
            f"duplicates: {sum(sizes):,} images in {len(sizes):,} groups of identical or near "
            "duplicates; each group is in one split"
        )
    if across := straddling(index, found, left_out):
        notes.append(
            f"duplicates: {len(across):,} groups are in several of the source's own splits, where "
            f"they stay; first: {' = '.join(index.keys[row] for row in across[0][:2])}"
        )
    if sizes and max(sizes) > LARGE * len(index):
        notes.append(
            f"duplicates: one group has {max(sizes):,} of {len(index):,} images; at 16×16 pixels "
            'many images of this source look alike, and duplicates = "keep" may be the better '
            "choice"
        )
    return notes
