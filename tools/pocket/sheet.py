"""Write an embedded domain in the format of `pocket:`: its image sheets and its card.

`assets/NAME.json` is the card; `assets/NAME.SPLIT.webp` a grid of equally large tiles, row by row,
lossless. A tile's label is its place in the card's `labels` of that split; `groups` names what must
not straddle splits (font family, game map, …).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onetrunk.data.duplicates import near_pairs, thumbnail

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src" / "onetrunk" / "data" / "assets"
WORK = ROOT / ".pocket"  # downloads and intermediate files; ignored by git
SPLITS = ("train", "val", "test")


@dataclass
class Tile:
    """One image of a domain under construction."""

    image: np.ndarray  # (H, W) or (H, W, 3), uint8
    label: int
    group: str  # what must not straddle splits


@dataclass
class Card:
    """The card of a domain, written as assets/NAME.json."""

    name: str
    title: str
    about: str  # one or two sentences: what is seen, how it was made
    kind: str  # "classify", or "dense" for rooms
    classes: list[str]
    package: str  # where the images are from, with its version
    licence: str
    counterpart: str  # the first paper's data set that it stands for
    grouping: str  # what never straddles splits
    extra: dict[str, Any] = field(default_factory=dict)  # anything that only this domain has


def drop_near(train: list[Tile], *others: list[Tile]) -> list[list[Tile]]:
    """Return the splits without images that are near one of an earlier split, train first."""
    seen = np.stack([thumbnail(t.image) for t in train])
    kept = []
    for tiles in others:
        thumbs = np.stack([thumbnail(t.image) for t in tiles])
        near = set(near_pairs(thumbs, seen)[:, 0].tolist())
        kept.append([t for i, t in enumerate(tiles) if i not in near])
        seen = np.concatenate([seen, thumbs])
    return kept


def write(card: Card, splits: dict[str, list[Tile]], format: str = "webp") -> int:
    """Write sheets and card; return their size. The same tiles give the same bytes."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    height, width = next(iter(splits.values()))[0].image.shape[:2]
    document: dict[str, Any] = {
        **card.__dict__,
        "size": [height, width],
        "format": format,
        "splits": {},
    }
    extra = document.pop("extra")
    total = 0
    for name in SPLITS:
        tiles = splits[name]
        columns = max(1, int(np.sqrt(len(tiles) * height / width)))
        rows = -(-len(tiles) // columns)
        shape = (rows * height, columns * width, *tiles[0].image.shape[2:])
        sheet = np.zeros(shape, np.uint8)
        for i, tile in enumerate(tiles):
            y, x = i // columns * height, i % columns * width
            sheet[y : y + height, x : x + width] = tile.image
        path = ASSETS / f"{card.name}.{name}.{format}"
        if format == "webp":
            Image.fromarray(sheet).save(path, lossless=True, quality=100, method=6, exact=True)
        else:
            Image.fromarray(sheet).save(path, optimize=True)
        total += path.stat().st_size
        groups = sorted({t.group for t in tiles})
        document["splits"][name] = {
            "count": len(tiles),
            "columns": columns,
            "labels": [t.label for t in tiles],
            "group_names": groups,
            "groups": [groups.index(t.group) for t in tiles],
        }
    document |= extra
    path = ASSETS / f"{card.name}.json"
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    total += path.stat().st_size
    counts = {name: len(splits[name]) for name in SPLITS}
    print(f"{card.name}: {counts}, {len(card.classes)} classes, {total / 1e6:.2f} MB")
    return total
