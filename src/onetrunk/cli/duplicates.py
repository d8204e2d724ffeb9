"""`onetrunk data SOURCE --fix-duplicates`: what the settings for duplicates would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onetrunk.cli.output import print_json
from onetrunk.data.domain import Domain
from onetrunk.data.duplicate_groups import Rows, find_duplicates, straddling
from onetrunk.data.index import Index
from onetrunk.data.task import NO_CLASS
from onetrunk.errors import printable

SHOWN = 8  # groups listed on the terminal; --json lists all
LONG = 6  # images of a group that are listed


def show_duplicates(domain: Domain, as_json: bool) -> None:
    """Print what would be grouped and left out, and the lines for a recipe; change nothing."""
    plan = duplicate_plan(domain)
    if as_json:
        print_json(plan)
    else:
        _show(plan)


def duplicate_plan(domain: Domain) -> dict[str, Any]:
    """Return the groups of duplicates, and what each setting would do, by names of images."""
    index = domain.listing
    found = find_duplicates(index, domain.decoded.records)

    def named(groups: Sequence[Rows]) -> list[list[str]]:
        return [[index.keys[row] for row in group] for group in groups]

    groups = list(found.groups())
    left_out = np.flatnonzero(found.extra >= 0)
    return {
        "source": str(domain.source),
        "images": len(index),
        "groups": named(groups),
        "left_out": {index.keys[row]: index.keys[found.extra[row]] for row in left_out},
        "conflicts": [
            {index.keys[row]: _label(index, int(row)) for row in group}
            for group in found.conflicts()
        ],
        "across_given_splits": named(straddling(index, found)),
    }


def _label(index: Index, row: int) -> str:
    """Return the classes of an image, of all tasks with one class per image."""
    columns = [(task, index.labels[task.name]) for task in index.tasks if task.name in index.labels]
    return ", ".join(
        task.classes[column[row]]
        for task, column in columns
        if column.ndim == 1 and column[row] != NO_CLASS
    )


def _show(plan: dict[str, Any]) -> None:
    groups, left_out, conflicts = plan["groups"], plan["left_out"], plan["conflicts"]
    if not groups:
        print(f"no duplicates among {plan['images']:,} images")
        return
    grouped = sum(map(len, groups))
    print(
        f"{grouped:,} of {plan['images']:,} images are in {len(groups):,} groups of identical or "
        "near duplicates:"
    )
    _list([_joined(group) for group in groups])
    if left_out:
        print(f'{len(left_out):,} images that duplicates = "drop" leaves out:')
        _list([f"{name}, as {kept} is kept" for name, kept in left_out.items()])
    in_conflict = sum(map(len, conflicts))
    if conflicts:
        print(
            f'{in_conflict:,} images with the same content and several labels (conflicts = "drop"):'
        )
        _list([_joined([f"{name} ({label})" for name, label in c.items()]) for c in conflicts])
    if across := plan["across_given_splits"]:
        print(
            f"{len(across):,} groups are in several of the source's own splits. There they stay "
            'with "group"; with "drop" the image in test is kept, or else the one in val:'
        )
        _list([_joined(group) for group in across])
    print("Nothing was changed. For the [[domains]] table of a recipe:")
    print(f'  duplicates = "group"    # each of {len(groups):,} groups is in one split')
    if left_out:
        print(f'  duplicates = "drop"     # or leave out {len(left_out):,} images')
    if conflicts:
        print(f'  conflicts = "drop"      # leave out {in_conflict:,} images')


def _joined(names: Sequence[str]) -> str:
    more = f" = … ({len(names):,} images)" if len(names) > LONG else ""
    return " = ".join(names[:LONG]) + more


def _list(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {printable(line)}")
    if len(lines) > SHOWN:
        print(f"  … and {len(lines) - SHOWN:,} more; --json lists all")
