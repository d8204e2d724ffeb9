"""Build `emoji`: pictures of Noto Emoji by Unicode's own groups, from emoji-datasource-google.

One picture an emoji, in the default yellow: no skin tones. Flags are a domain of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fetch
import numpy as np
from PIL import Image
from sheet import Card, Tile, write
from splits import join_near, share, shares, verify

VERSION = "16.0.0"
SIDE = 32
CLASSES = [
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
]
PERSONS = {"1F468", "1F469", "1F9D1"}  # man, woman, person
VARIANTS = {"2640", "2642", "27A1", "FE0F", "200D"}  # the signs of gender, direction, joining
CLOCKS = {f"{0x1F550 + i:X}" for i in range(24)}  # one clock, 24 times of day


def package() -> Path:
    """Return the folder of the package; `flags` uses it as well."""
    return fetch.npm("emoji-datasource-google", VERSION)


def picture(name: str) -> np.ndarray:
    """Return a picture of the package over white, halved to (32, 32, 3)."""
    with Image.open(package() / "img" / "google" / "64" / name) as file:
        front = file.convert("RGBA")
    back = Image.new("RGBA", front.size, "white")
    flat = Image.alpha_composite(back, front).convert("RGB")
    return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BOX))


def base(entry: dict[str, Any]) -> str:
    """Return the emoji without gender and direction, which its variants share."""
    if entry["subcategory"] == "family":
        return "family"
    codes = [code for code in entry["unified"].split("-") if code not in VARIANTS]
    if CLOCKS & set(codes):
        return "clock"
    if len(codes) > 1 and codes[0] in PERSONS:
        codes[0] = "person"
    return "-".join(codes)


def main() -> None:
    entries = json.loads((package() / "emoji.json").read_text("utf-8"))
    tiles = [
        Tile(picture(entry["image"]), CLASSES.index(entry["category"]), base(entry))
        for entry in entries
        if entry["category"] in CLASSES
    ]
    joined = join_near(tiles)
    parts = {"train": 0.6, "val": 0.12, "test": 0.28}
    splits = share(joined, shares(joined, len(joined), parts), seed=0)
    verify(splits, len(CLASSES))
    card = Card(
        name="emoji",
        title="Emoji",
        about="Emoji in colour over white, one picture each without skin tones; the class is "
        "Unicode's group. Halved from pictures of 64×64 pixels.",
        kind="classify",
        classes=CLASSES,
        package=f"npm emoji-datasource-google {VERSION} (Noto Emoji 2.048)",
        licence="pictures, Noto Emoji: Apache-2.0, © Google; the npm package around them, which "
        "also names the groups: MIT, © 2013 Cal Henderson",
        counterpart="Caltech",
        grouping="Base emoji: its gender, direction and person variants, all families, all clock "
        "faces are one group each; so are emoji whose pictures are near duplicates.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
