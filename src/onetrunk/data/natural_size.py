"""The size of a source's images, from the headers of a few of them."""

from __future__ import annotations

import io
import itertools
import statistics

import numpy as np
from PIL import Image

from onetrunk.data.pixels import FORMATS, Raw
from onetrunk.data.sources import Source

IMAGES = 32  # whose headers are read


def median_side(source: Source, images: int = IMAGES) -> int | None:
    """Return the median of the shorter sides of a source's first images, in pixels.

    None: none of them can be read.
    """
    sides = []
    for item in itertools.islice(source.items(), images):
        try:
            height, width = size_of(source.image(item.where))
        except Exception:  # of decoders and of sources; bad images are listed when they are decoded
            continue
        sides.append(min(height, width))
    return round(statistics.median(sides)) if sides else None


def size_of(raw: Raw) -> tuple[int, int]:
    """Return the height and width of an image without decoding it."""
    if isinstance(raw, np.ndarray):
        return int(raw.shape[0]), int(raw.shape[1])
    if isinstance(raw, Image.Image):
        return raw.height, raw.width
    with Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw, formats=FORMATS) as opened:
        return opened.height, opened.width
