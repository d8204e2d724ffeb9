"""Colours, a font and a signature for contact sheets, maps and charts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont
from PIL.PngImagePlugin import PngInfo

from onetrunk.data.pixels import U8

# Fonts with many scripts, which Pillow finds by name where they are installed.
FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")

SIGNATURE = ("Software", "onetrunk")


def _table(colours: str) -> U8:
    return np.frombuffer(bytes.fromhex(colours), np.uint8).reshape(-1, 3)


# Colour scales (S. van der Walt and N. Smith, 2015, CC0), 33 equidistant colours of each.
MAGMA = _table(
    "0000040303110a0822130d331d114628115a36106a430f7650127c5d177f691c817621818226818f2a81"
    "9c2e7fa9327db63779c33b75cf4170db486ae65163ee5c5ef5695cf9785dfb8761fd9668fea571feb47b"
    "fec387fed194fde0a2fceeb0fcfdbf"
)
VIRIDIS = _table(
    "440154470d6048186a482374472d7b4536814240863f49893b528b375a8d33638d2f6a8e2c728e297a8e"
    "26818e23898e21908c1f988b1f9f8821a68528ae8031b57b3ebc744cc26c5dc9636ece5882d34c96d83f"
    "abdc32c0df24d5e21aeae51afde725"
)
# Tableau 20: ten strong colours, then the pale one of each.
TABLEAU = _table(
    "1f77b4ff7f0e2ca02cd627289467bd8c564be377c27f7f7fbcbd2217becf"
    "aec7e8ffbb7898df8aff9896c5b0d5c49c94f7b6d2c7c7c7dbdb8d9edae5"
)


def colour_scale(scale: U8, share: NDArray[np.floating]) -> U8:
    """Return the colours (…, 3) of numbers from 0 to 1, interpolated linearly."""
    places = np.linspace(0, 1, len(scale))
    channels = [np.interp(share, places, scale[:, channel]) for channel in range(3)]
    colours: U8 = np.rint(np.stack(channels, -1)).astype(np.uint8)
    return colours


def text_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font with many scripts if one is installed, else Pillow's own (Latin only)."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def signature() -> PngInfo:
    """Return the metadata of PNG files by which `is_signed` knows them."""
    info = PngInfo()
    info.add_text(*SIGNATURE)
    return info


def is_signed(path: Path) -> bool:
    """Return whether a file is a PNG that onetrunk has drawn, by its metadata."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get(SIGNATURE[0]) == SIGNATURE[1]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
