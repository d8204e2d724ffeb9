"""Images embedded in the page as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from onetrunk.data.pixels import U8

LONGEST = 128  # pixels
PIXELATED = 96  # up to this size, pixels are shown as squares


@dataclass(frozen=True)
class Thumbnail:
    """A small image as a data URI."""

    uri: str
    pixelated: bool  # shown with square pixels
    width: int
    height: int

    @classmethod
    def of(cls, image_HWC: U8, lossless: bool = False, longest: int = LONGEST) -> Thumbnail:
        """Encode an image as WebP, reduced to at most `longest` pixels a side."""
        picture = Image.fromarray(np.ascontiguousarray(image_HWC))
        if max(picture.size) > longest:
            how = Image.Resampling.NEAREST if lossless else Image.Resampling.BOX
            picture.thumbnail((longest, longest), how)
        pixelated = max(picture.size) <= PIXELATED
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=lossless or pixelated, quality=82, method=4)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return cls(f"data:image/webp;base64,{data}", pixelated, *picture.size)

    def scaled_to(self, side: int) -> tuple[int, int]:
        """Return the width and height at which its longer side is about `side` pixels."""
        zoom = side / max(self.width, self.height)
        if zoom >= 1.5:
            zoom = round(zoom)
        return round(self.width * zoom), round(self.height * zoom)
