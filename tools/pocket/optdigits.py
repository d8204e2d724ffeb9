"""Build `optdigits`: UCI's optical digits of 8×8 pixels, from scikit-learn's copy of them.

The copy is the test part of the UCI collection: 1,797 images by 13 writers, each pixel the number
of black pixels, 0 to 16, in a 4×4 block of a scanned 32×32 bitmap.
"""

from __future__ import annotations

import gzip

import fetch
import numpy as np
from sheet import Card, Tile, write
from splits import join_near, share, shares, verify

VERSION = "1.7.2"  # of scikit-learn


def main() -> None:
    folder = fetch.pypi("scikit-learn", VERSION) / "sklearn" / "datasets" / "data"
    with gzip.open(folder / "digits.csv.gz", "rt") as table:
        rows = np.loadtxt(table, delimiter=",", dtype=np.int64)
    images = (rows[:, :64] * 255 + 8) // 16  # 0..16 to 0..255, one to one
    tiles = [
        Tile(image.astype(np.uint8).reshape(8, 8), int(label), f"{i:04d}")
        for i, (image, label) in enumerate(zip(images, rows[:, 64], strict=True))
    ]
    parts = {"train": 0.6, "val": 0.12, "test": 0.28}
    joined = join_near(tiles)
    splits = share(joined, shares(joined, len(joined), parts), seed=0)
    verify(splits, 10)
    card = Card(
        name="optdigits",
        title="Optical digits",
        about="Handwritten digits scanned from forms and reduced to 8×8 pixels with 17 grey "
        "levels: UCI's Optical Recognition of Handwritten Digits, its test part.",
        kind="classify",
        classes=[str(digit) for digit in range(10)],
        package=f"PyPI scikit-learn {VERSION}",
        licence="CC BY 4.0 (UCI Machine Learning Repository; E. Alpaydin and C. Kaynak, 1998); "
        "scikit-learn, which carries the copy: BSD-3-Clause",
        counterpart="SVHN",
        grouping="Each image is its own group, named after its place in the collection; near "
        "duplicates share a group. The writers are not known.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
