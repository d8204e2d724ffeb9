"""Draw the words domain: English words in many open fonts, tilted and lit unevenly.

The images are drawn here from the Debian font packages named in fonts.py, with a fixed seed. Each
tile has a face, case, tilt, contrast and background of its own and light noise. Run:
`python tools/pocket/words.py`.
"""

from __future__ import annotations

import math

import numpy as np
from fonts import FACES, FAMILIES, Face, characters, font, group, ledger, licence
from PIL import Image, ImageDraw
from sheet import SPLITS, Card, Tile, drop_near, write

from onetrunk.data.duplicates import near_pairs, thumbnail

HEIGHT, WIDTH = 16, 64  # pixels, a tile
SCALE = 4  # drawn this many times larger, then averaged down
EM = 64  # pixels, the size at which outlines are drawn before they are fitted
LEVELS = 16  # grey levels kept: noise below a level costs no bytes
SEED = 20
IMAGES = {"train": 24, "val": 5, "test": 12}  # per word, before near duplicates are left out

# Four to eight letters, for the tile's width; no word begins another, so that a lost last letter
# does not make the label a guess.
WORDS = """
apple autumn bakery barber bottle branch bridge bright butter camera candle carpet castle cherry
church circle cloud coffee copper corner cotton dinner doctor dragon engine family farmer father
finger flower forest friend garden ginger guitar hammer harbor honey hotel island jacket jungle
kitchen ladder lemon library lion market mirror monkey morning mountain museum music number ocean
office orange oxygen paper parrot pencil people pepper photo piano pizza planet pocket police
rabbit river rocket school season shadow silver sister smoke spring square station stone street
summer sunset table ticket tiger tower turtle valley violin window winter yellow
""".split()


def strokes(face: Face, text: str, tilt: float, reach: float) -> np.ndarray:
    """Return the ink of a word, 0 to 1 at HEIGHT×WIDTH, tilted, filling `reach` of the tile."""
    drawn = font(face, EM)
    left, top, right, bottom = drawn.getbbox(text)
    ink = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(ink).text((4 - left, 4 - top), text, 255, drawn)
    ink = ink.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    box = ink.getbbox()
    if box is None:
        raise ValueError(f"{face.file} draws nothing for {text!r}")
    ink = ink.crop(box)
    room_h, room_w = (HEIGHT - 2) * SCALE * reach, (WIDTH - 4) * SCALE * reach
    scale = min(room_h / ink.height, room_w / ink.width)
    # A short word may be drawn a little wider, a long one a little taller, as on signs.
    high = min(room_h, ink.height * scale * 1.3)
    wide = min(room_w, ink.width * scale * 1.15)
    ink = ink.resize((max(1, round(wide)), max(1, round(high))), Image.Resampling.LANCZOS)
    sheet = Image.new("L", (WIDTH * SCALE, HEIGHT * SCALE))
    sheet.paste(ink, ((sheet.width - ink.width) // 2, (sheet.height - ink.height) // 2))
    small = sheet.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    ink_HW = np.asarray(small, np.float64) / 255
    return np.minimum(1, ink_HW * 1.25)  # hairlines would drown in the noise


def draw(face: Face, word: str, rng: np.random.Generator) -> np.ndarray:
    """Return a tile: ink on paper, either one brighter, with uneven light and a few specks."""
    case = rng.choice(3, p=[0.5, 0.3, 0.2])
    text = (word, word.capitalize(), word.upper())[case]
    # A tilted long word would have to shrink to fit: the tilt's rise is at most four pixels.
    tilt = math.degrees(math.asin(rng.uniform(-4, 4) / WIDTH))
    ink_HW = strokes(face, text, tilt, rng.uniform(0.88, 1))
    contrast = rng.uniform(0.45, 0.95)
    dark = rng.uniform(0, 1 - contrast)
    paper, stroke = (dark + contrast, dark) if rng.random() < 0.55 else (dark, dark + contrast)
    back_HW = np.full((HEIGHT, WIDTH), paper)
    kind = rng.integers(3)
    if kind == 1:  # light from one side
        back_HW += np.linspace(-0.12, 0.12, WIDTH) * rng.choice([-1, 1])
    elif kind == 2:  # light from above or below
        back_HW += np.linspace(-0.12, 0.12, HEIGHT)[:, None] * rng.choice([-1, 1])
    tile_HW = back_HW * (1 - ink_HW) + stroke * ink_HW
    # Specks on one pixel in forty: noise on every pixel would cost more bytes than the words.
    specks_HW = rng.random((HEIGHT, WIDTH)) < 1 / 40
    tile_HW += specks_HW * rng.uniform(-0.15, 0.15, (HEIGHT, WIDTH))
    step = 255 / (LEVELS - 1)
    levels_HW: np.ndarray = np.rint(np.clip(tile_HW, 0, 1) * 255 / step) * step
    return levels_HW.astype(np.uint8)


def build() -> dict[str, list[Tile]]:
    """Return every word in every split, with faces in turn from the split's shuffled faces."""
    splits: dict[str, list[Tile]] = {}
    for number, name in enumerate(SPLITS):
        faces = [face for face in FACES if face.words and FAMILIES[face.family].split == name]
        for face in faces:
            lacking = set("".join(WORDS) + "".join(WORDS).upper()) - characters(face)
            if lacking:
                raise ValueError(f"{face.file} has no {''.join(sorted(lacking))}")
        tiles = splits[name] = []
        for label, word in enumerate(WORDS):
            rng = np.random.default_rng([SEED, number, label])
            order = rng.permutation(len(faces))
            for i in range(IMAGES[name]):
                face = faces[order[i % len(faces)]]
                tiles.append(Tile(draw(face, word, rng), label, group(face)))
    return splits


def main() -> None:
    if len(set(WORDS)) != len(WORDS):
        raise ValueError("a word occurs twice")
    splits = build()
    before = {name: len(splits[name]) for name in SPLITS}
    splits["val"], splits["test"] = drop_near(splits["train"], splits["val"], splits["test"])
    for name in ("val", "test"):
        print(
            f"{name}: {before[name] - len(splits[name])} of {before[name]} were near and left out"
        )
    thumbs = {name: np.stack([thumbnail(t.image) for t in splits[name]]) for name in SPLITS}
    near = len(set(near_pairs(thumbs["test"], thumbs["train"])[:, 0].tolist()))
    print(f"test images near a training image: {near} of {len(splits['test'])}")
    for name in SPLITS:
        missing = set(range(len(WORDS))) - {t.label for t in splits[name]}
        if missing:
            raise ValueError(f"no {name} image of {[WORDS[i] for i in sorted(missing)]}")
    faces = [face for face in FACES if face.words]
    card = Card(
        name="words",
        title="Words",
        about=f"One of {len(WORDS)} English words, drawn in an open font with tilt, varied case, "
        "contrast and background and light noise.",
        kind="classify",
        classes=WORDS,
        package="Debian 12 font packages, which the card lists under `fonts`",
        licence=licence(faces),
        counterpart="Synth90k",
        grouping="font family",
        extra={"faces": len(faces), "fonts": ledger(faces)},
    )
    write(card, splits)


if __name__ == "__main__":
    main()
