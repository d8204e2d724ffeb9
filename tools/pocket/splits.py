"""Fixed splits: groups and near duplicates stay in one split, which is checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from sheet import SPLITS, Tile

from onetrunk.data.duplicates import near_pairs, thumbnail

Splits = dict[str, list[Tile]]


def thumbnails(tiles: list[Tile]) -> np.ndarray:
    """Return the thumbnails of all tiles, (N, 16, 16)."""
    return np.stack([thumbnail(t.image) for t in tiles])


def join_near(tiles: list[Tile]) -> list[Tile]:
    """Return the same tiles, with groups merged that have near duplicates of each other.

    A split by the joined groups has no near duplicates across splits, and nothing need be dropped.
    """
    parent = {t.group: t.group for t in tiles}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    thumbs = thumbnails(tiles)
    for i, j in near_pairs(thumbs, thumbs):
        a, b = sorted((root(tiles[i].group), root(tiles[j].group)))
        parent[b] = a
    return [replace(t, group=root(t.group)) for t in tiles]


def share(tiles: list[Tile], wanted: Mapping[str, Mapping[int, int]], seed: int) -> Splits:
    """Assign groups to the splits until each has the requested images of each class.

    Large groups are placed first, so that they end in train; a group goes where it fills most of
    what is missing, among equals where most is missing. Groups that nobody needs are left out.
    """
    members: dict[str, list[Tile]] = defaultdict(list)
    for tile in tiles:
        members[tile.group].append(tile)
    names = sorted(members)
    order = np.random.default_rng(seed).permutation(len(names))
    names = [names[i] for i in order]
    names.sort(key=lambda name: -len(members[name]))  # stable: equals stay shuffled
    need = {split: Counter(classes) for split, classes in wanted.items()}
    result: Splits = {split: [] for split in SPLITS}
    for name in names:
        count = Counter(t.label for t in members[name])
        fills = {s: sum(min(n, max(0, need[s][c])) for c, n in count.items()) for s in SPLITS}
        lacks = {s: sum(need[s][c] / max(1, wanted[s].get(c, 0)) for c in count) for s in SPLITS}
        best = max(SPLITS, key=lambda s: (fills[s], lacks[s]))
        if fills[best] == 0:
            continue
        result[best] += members[name]
        need[best].subtract(count)
    return {split: in_order(kept) for split, kept in result.items()}


def in_order(tiles: list[Tile]) -> list[Tile]:
    """Sort by class, then by group: similar neighbours compress well."""
    return sorted(tiles, key=lambda t: (t.label, t.group))


def shares(tiles: list[Tile], limit: int, parts: Mapping[str, float]) -> dict[str, dict[int, int]]:
    """Return how many images of each class each split gets: its share, at most `limit`."""
    counts = Counter(t.label for t in tiles)
    return {s: {c: round(min(n, limit) * p) for c, n in counts.items()} for s, p in parts.items()}


def verify(splits: Splits, classes: int, *, near: bool = True) -> None:
    """Check the splits and print the results; fail on missing classes and shared images."""
    pixels = {s: [t.image.tobytes() for t in tiles] for s, tiles in splits.items()}
    for split, tiles in splits.items():
        lacking = sorted(set(range(classes)) - {t.label for t in tiles})
        if lacking:
            raise SystemExit(f"{split} lacks classes {lacking}")
    seen: set[bytes] = set()
    for split in SPLITS:
        twice = sum(p in seen for p in pixels[split])
        if twice:
            raise SystemExit(f"{twice} images of {split} are also in an earlier split")
        seen |= set(pixels[split])
    for split in ("val", "test"):
        straddling = {t.group for t in splits[split]} & {t.group for t in splits["train"]}
        if straddling:
            raise SystemExit(f"{len(straddling)} groups are in train and in {split}")
        pairs = near_pairs(thumbnails(splits[split]), thumbnails(splits["train"]))
        part = len(set(pairs[:, 0].tolist())) / len(splits[split])
        print(f"  {split}: {part:.2%} of the images are near one of train, none is equal")
        if near and part > 0.01:
            raise SystemExit(f"more than 1 % of {split} is near train")
    each = {s: Counter(t.label for t in tiles) for s, tiles in splits.items()}
    least = {s: min(count.values()) for s, count in each.items()}
    groups = {s: len({t.group for t in tiles}) for s, tiles in splits.items()}
    print(f"  smallest class: {least}; groups: {groups}")
