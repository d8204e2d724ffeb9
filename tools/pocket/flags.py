"""Build `flags`: country flags in simulated photographs, from emoji-datasource-google.

Every view is made here: a flag before a random background in a random perspective, lit from one
side, blurred, noisy, and stored with 24 levels per channel to keep the sheet small. Views of val
and test have their own seeds.
"""

from __future__ import annotations

import json

import numpy as np
from emoji import VERSION, package
from PIL import Image, ImageFilter
from sheet import Card, Tile, write
from splits import Splits, verify

SIDE = 28
BIG = 4 * SIDE  # views are made large and reduced, which smooths edges as a lens does
LEVELS = 24  # of a channel
COUNTRIES = 100
DIFFERENT = 20.0  # grey levels between two flags of 12×8 pixels; France and Italy: 24
WELL_KNOWN = (
    "US CN IN JP DE GB FR IT BR CA KR ES AU MX ID NL TR SA CH SE PL BE AR NO AT IL TH IE DK SG MY "
    "ZA PH EG PK CL FI PT GR CZ VN BD NZ UA HU KZ KE JM CU NP"
).split()
EACH = {"train": 20, "val": 4, "test": 10}  # views of a country
# Flags that repeat another one, whole or in their corner, and those of unions and small islands.
LEFT_OUT = set(
    "AC AI AQ AS AW AX BL BM BQ BV CC CK CP CQ CW CX DG EA EH EU FK FO GF GG GI GL GP GS GU HK "
    "HM IC IM IO JE KY MF MO MP MQ MS NC NF NU PF PM PN PR RE SH SJ SX TA TC TF TK UM UN VG VI "
    "WF YT".split()
)


def flags() -> dict[str, tuple[str, Image.Image]]:
    """Return country and cut-out picture (RGBA) by country code."""
    entries = json.loads((package() / "emoji.json").read_text("utf-8"))
    result = {}
    for entry in sorted(entries, key=lambda e: e["unified"]):
        points = entry["unified"].split("-")
        if entry["category"] != "Flags" or not points[0].startswith("1F1"):
            continue
        code = "".join(chr(int(point, 16) - 0x1F1E6 + ord("A")) for point in points)
        if code in LEFT_OUT:
            continue
        with Image.open(package() / "img" / "google" / "64" / entry["image"]) as file:
            picture = file.convert("RGBA")
        name = entry["name"].removesuffix(" Flag")
        result[code] = name, picture.crop(picture.getbbox())
    return result


def chosen() -> list[tuple[str, Image.Image]]:
    """Return a hundred countries, WELL_KNOWN first, without flags too similar to earlier ones."""
    pool = flags()
    kept: list[str] = []
    small: list[np.ndarray] = []
    for code in [*WELL_KNOWN, *(code for code in pool if code not in WELL_KNOWN)]:
        picture = pool[code][1].resize((12, 8), Image.Resampling.BOX)
        colours = np.asarray(picture, np.float64)[..., :3]
        if len(kept) < COUNTRIES and all(np.abs(colours - s).mean() >= DIFFERENT for s in small):
            kept.append(code)
            small.append(colours)
    print(f"  {len(kept)} countries; too similar to another: {sorted(set(WELL_KNOWN) - set(kept))}")
    return [pool[code] for code in sorted(kept)]


def background(random: np.random.Generator) -> np.ndarray:
    """Return a blurred scene of a wall or sky with soft patches, (BIG, BIG, 3) floats."""
    size = int(random.integers(2, 6))
    coarse = random.normal(0, 10, (size, size, 3)) + random.normal(0, 30, (size, size, 1))
    coarse += random.uniform(40, 215) + random.normal(0, 14, 3)
    image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((BIG, BIG), Image.Resampling.BICUBIC), np.float64)


def perspective(corners: np.ndarray, width: int, height: int) -> list[float]:
    """Return PIL's 8 coefficients from a point of the view to its place in the flag."""
    rows, right = [], []
    places = [(0, 0), (width, 0), (width, height), (0, height)]
    for (x, y), (u, v) in zip(corners, places, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        right += [u, v]
    solved = np.linalg.solve(np.array(rows), np.array(right, np.float64))
    return [float(value) for value in solved]


def view(flag: Image.Image, random: np.random.Generator) -> np.ndarray:
    """Return a view of a flag, (28, 28, 3)."""
    wide = random.uniform(0.72, 1.0) * BIG
    tall = wide * random.uniform(0.62, 0.82)
    corners = np.array([[-wide, -tall], [wide, -tall], [wide, tall], [-wide, tall]]) / 2
    corners += random.normal(0, 0.05 * BIG, (4, 2))
    angle = random.normal(0, 0.16)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = BIG / 2 + random.normal(0, 0.045 * BIG, 2)
    numbers = perspective(corners @ turn + centre, flag.width, flag.height)
    seen = flag.transform(
        (BIG, BIG), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC
    )
    pixels = np.asarray(seen, np.float64)
    alpha = pixels[..., 3:] / 255
    y, x = np.mgrid[0:BIG, 0:BIG] / BIG - 0.5
    wind = random.uniform(0, 2 * np.pi)
    folds = np.sin(2 * np.pi * random.uniform(1, 3) * x + wind + random.normal(0, 1) * y * 3)
    cloth = pixels[..., :3] * (1 + random.uniform(0, 0.14) * folds[..., None])
    scene = cloth * alpha + background(random) * (1 - alpha)
    side = random.normal(0, 0.22, 2)
    light = random.uniform(0.65, 1.15) + side[0] * x + side[1] * y
    tint = 1 + random.normal(0, 0.05, 3)
    scene = scene * light[..., None] * tint + random.uniform(0, 22)  # the last: haze
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 3.5)))
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    small = small + random.normal(0, random.uniform(0, 1.2), (SIDE, SIDE, 1))
    step = 255 / (LEVELS - 1)
    return np.rint(np.clip(np.rint(small / step), 0, LEVELS - 1) * step).astype(np.uint8)


def main() -> None:
    countries = chosen()
    splits: Splits = {}
    for part, (split, each) in enumerate(EACH.items()):
        splits[split] = [
            Tile(view(flag, np.random.default_rng([part, c, i])), c, f"{part}-{c}-{i}")
            for c, (_, flag) in enumerate(countries)
            for i in range(each)
        ]
    verify(splits, len(countries), near=False)
    card = Card(
        name="flags",
        title="Country flags",
        about="Flags of states as in photographs: views made from flag pictures with random "
        "perspective, folds, light, background, blur and noise. States whose flags look nearly "
        "alike at this size are left out.",
        kind="classify",
        classes=[name for name, _ in countries],
        package=f"npm emoji-datasource-google {VERSION} (Noto Emoji 2.048)",
        licence="flag pictures, Noto Emoji's region flags: in the public domain or otherwise "
        "exempt from copyright (Noto Emoji itself: Apache-2.0); the npm package around them: MIT, "
        "© 2013 Cal Henderson",
        counterpart="GTSR",
        grouping="Each view is its own group; no two views share a background or a perspective. "
        "All views of a country come from one picture.",
    )
    write(card, splits)


if __name__ == "__main__":
    main()
