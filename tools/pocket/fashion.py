"""Build `fashion`: Zalando's article photographs, from the Debian package dataset-fashion-mnist.

Training and validation images come from its own training file, test images from its test file.
"""

from __future__ import annotations

import gzip

import fetch
import numpy as np
from sheet import Card, Tile, drop_near, write
from splits import in_order, join_near, share, verify

VERSION = "0.0~git20200523.55506a9-1"
CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
EACH = {"train": 200, "val": 40}  # images of a class
TEST = 100
POOL = 1.5  # candidates per wanted image, so that near duplicates can be replaced


def tiles(prefix: str, each: int) -> list[Tile]:
    """Return the first `each` images of every class of a pair of files."""
    folder = fetch.debian("dataset-fashion-mnist", VERSION) / "usr/share/datasets/fashion-mnist"
    raw = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    raw = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8)
    chosen = [i for c in range(10) for i in np.flatnonzero(labels == c)[:each]]
    return [Tile(pixels[i], int(labels[i]), f"{prefix}-{i:05d}") for i in chosen]


def main() -> None:
    pool = join_near(tiles("train", round(POOL * sum(EACH.values()))))
    wanted = {split: dict.fromkeys(range(10), n) for split, n in EACH.items()} | {"test": {}}
    splits = share(pool, wanted, seed=0)
    (spare,) = drop_near(splits["train"] + splits["val"], tiles("t10k", round(POOL * TEST)))
    chosen = [[t for t in spare if t.label == c][:TEST] for c in range(10)]
    splits["test"] = in_order([t for of_class in chosen for t in of_class])
    verify(splits, 10)
    card = Card(
        name="fashion",
        title="Articles of clothing",
        about="Shop photographs of clothes, shoes and bags, grey on black: a part of "
        "Fashion-MNIST, pixels as published.",
        kind="classify",
        classes=CLASSES,
        package=f"Debian dataset-fashion-mnist {VERSION}",
        licence="MIT, © 2017 Zalando SE",
        counterpart="CIFAR-10",
        grouping="Each image is its own group, named after its place in the published files; near "
        "duplicates share a group. Test images are from the published test file.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
