"""An image inside the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from onetrunk.data.pixels import U8

LONGEST = 128  # pixels of a thumbnail
PIXELS = 96  # up to this size a picture's pixels are shown as squares


@dataclass(frozen=True)
class Picture:
    """An image as a data: address."""

    uri: str
    small: bool  # shown by whole pixels
    width: int
    height: int

    @classmethod
    def of(cls, image_HWC: U8, lossless: bool = False, longest: int = LONGEST) -> Picture:
        """Encoded small: WebP, which every browser shows."""
        picture = Image.fromarray(np.ascontiguousarray(image_HWC))
        if max(picture.size) > longest:
            how = Image.Resampling.NEAREST if lossless else Image.Resampling.BOX
            picture.thumbnail((longest, longest), how)
        small = max(picture.size) <= PIXELS
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=lossless or small, quality=82, method=4)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return cls(f"data:image/webp;base64,{data}", small, *picture.size)
