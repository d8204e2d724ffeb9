"""Build `icons`: line drawings by subject, from the outline icons of @tabler/icons.

The drawings are SVG with one category each; they are rasterised white on black, with 16 grey
levels, so that the sheet stays small.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections import Counter

import fetch
import numpy as np
from PIL import Image
from sheet import Card, Tile, write
from splits import join_near, share, shares, verify

VERSION = "3.51.0"
RASTERISER = "0.5.0"  # of resvg-py
SIDE = 32
LEVELS = 16
LEAST = 36  # icons of a category that is kept: about ten of them are test images
MOST = 240  # icons of a category, or a fifth of the pictures were "System"
VARIANTS = 6  # of an icon
# Logos belong to their owners whatever the drawing's licence; the words of file formats are text.
LEFT_OUT = {"Brand", "Extensions"}
# Words that name a variant of an icon when they stand at its end (and numbers do too).
VARIANT = set(
    "off filled small plus minus x check cancel down up left right search dollar heart star "
    "exclamation share cog question bolt code pause pin spark ai edit key discount flame scan "
    "bitcoin vertical horizontal dashed dotted rounded top bottom center middle half double out in "
    "back forward open closed broken move stop lock euro pound y a b e f p".split()
)


def base(name: str) -> str:
    """Return the icon that `name` is a variant of: bell for bell-off, bell-2, bell-ringing-2."""
    words = name.split("-")
    for sign in ("letter", "number"):  # circle-letter-a, letter-a-small: one sign in its frames
        if sign in words[:-1]:
            return f"{sign}-{words[words.index(sign) + 1]}"
    while len(words) > 1 and (words[-1] in VARIANT or words[-1].isdigit()):
        words.pop()
    return "-".join(words)


def thinned(tiles: list[Tile]) -> list[Tile]:
    """Return at most VARIANTS images per group and class, so that no icon dominates its class."""
    seen: Counter[tuple[str, int]] = Counter()
    kept = []
    for tile in sorted(tiles, key=lambda t: t.group):
        seen[tile.group, tile.label] += 1
        if seen[tile.group, tile.label] <= VARIANTS:
            kept.append(tile)
    return kept


def picture(svg: str) -> np.ndarray:
    """Return the drawing in white on black, (32, 32)."""
    home = str(fetch.pypi("resvg-py", RASTERISER))
    if home not in sys.path:
        sys.path.append(home)
    resvg = importlib.import_module("resvg_py")
    white = svg.replace("currentColor", "#ffffff")
    png = resvg.svg_to_bytes(svg_string=white, width=SIDE, height=SIDE, background="#000000")
    with Image.open(io.BytesIO(bytes(png))) as file:
        grey = np.asarray(file.convert("L"), np.float64)
    step = 255 / (LEVELS - 1)
    return np.rint(np.rint(grey / step) * step).astype(np.uint8)


def main() -> None:
    folder = fetch.npm("@tabler/icons", VERSION)
    entries = json.loads((folder / "icons.json").read_text("utf-8"))
    category = {
        name: entry["category"]
        for name, entry in entries.items()
        if "outline" in entry["styles"] and entry["category"] not in LEFT_OUT
    }
    counts = Counter(category.values())
    classes = sorted(c for c, n in counts.items() if n >= LEAST)
    print(f"  too few icons: { {c: n for c, n in counts.items() if n < LEAST} }")
    tiles = [
        Tile(
            picture((folder / "icons" / "outline" / f"{name}.svg").read_text("utf-8")),
            classes.index(category[name]),
            base(name),
        )
        for name in sorted(category)
        if category[name] in classes
    ]
    joined = thinned(join_near(tiles))
    parts = {"train": 0.6, "val": 0.12, "test": 0.28}
    splits = share(joined, shares(joined, MOST, parts), seed=0)
    verify(splits, len(classes))
    card = Card(
        name="icons",
        title="Icons",
        about="Line drawings of one stroke width, white on black; the class is the category that "
        "their authors assigned, which partly depends on their use. Logos are left out.",
        kind="classify",
        classes=classes,
        package=f"npm @tabler/icons {VERSION}",
        licence="MIT, © 2020-2026 Paweł Kuna",
        counterpart="Sketches",
        grouping="Base icon: its variants (-off, -plus, -2, …) and a letter or number in all its "
        "frames are one group; so are icons whose pictures are near duplicates.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
