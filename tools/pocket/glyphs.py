"""Draw the glyphs domain: characters of twelve scripts in the faces of many open fonts.

The images are drawn here from the Debian font packages named in fonts.py: one per (character,
face), white on black, the ink scaled to fill the same box. Run: `python tools/pocket/glyphs.py`.
"""

from __future__ import annotations

import numpy as np
from fonts import FACES, FAMILIES, Face, characters, font, group, ledger, licence
from PIL import Image, ImageDraw
from sheet import SPLITS, Card, Tile, drop_near, write

from onetrunk.data.duplicates import near_pairs, thumbnail

SIDE = 28  # pixels, a tile's side
INK = 24  # pixels, the longer side of the ink's box: size never tells a letter, only shape does
EM = 96  # pixels, the size at which outlines are drawn before they are scaled down
LEVELS = 16  # grey levels kept: half the bytes of 256, and the eye sees no difference at 28 pixels

# What looks alike is one class or none, or a label could not be told from its image: of letters
# that scripts share (A of Latin, Greek and Cyrillic) only the Latin one is here, of cases that
# differ only in size (S s) only the capital, and of look-alikes across scripts at most one: J and
# lam, O and samekh and zero, 3 and Ze, U and Ս, 2 and Չ, Ч and Կ, π and ח, Y and γ, b d h m and
# ხ ძ ჩ ო, Ш and 山, や and ヤ. Thai leaves out pairs that differ by a notch: ค ด ต, ช ซ, ผ พ, บ ป.
SCRIPTS = {
    "latin": "ABCDEFGHJKLMNPQRSTUVWXYZabdefghmnqrt2345678",
    "greek": "ΓΔΘΛΞΣΦΨΩβδεζλμξσω",
    "cyrillic": "БДЖИЙЦЧШЩЪЫЭЮЯЉЊЋЏ",
    "hebrew": "אבגדהזחטכלמנסעפצקרשת",
    "arabic": "بتثجحخدذزسشصضطظعغفقكمنوي",
    "armenian": "ԱԲԳԴԵԸԹԺԻԽԾՁՂՃՄՇՊՋՌՎՑՔՖ",
    "georgian": "აბგდეთკლმჟტუფქღყშჭჯც",
    "devanagari": "अइउएकखगघचछजटठडढणतथदधनपफबभमयरवसह",
    "thai": "กขคฆงจฉชญณถทธนบพมยลวสหอฮ",
    "hangul": "가나다라마바사아자차카타파하글봄꽃별숲눈힘길맛집",
    "han": "大水火木金天月馬魚鳥雨花春夏東西南北石竹米空車足",
    "kana": "あえおけさすせたなぬねのはふほまみむめもやゆよるれわをアウキクサネホミム",
}


def draw(face: Face, character: str) -> np.ndarray:
    """Return a centred white glyph on black, whose longer side is `INK` pixels."""
    sheet = Image.new("L", (4 * EM, 4 * EM))
    ImageDraw.Draw(sheet).text((2 * EM, 2 * EM), character, 255, font(face, EM), anchor="mm")
    box = sheet.getbbox()
    if box is None:
        raise ValueError(f"{face.file} draws nothing for {character!r}")
    ink = sheet.crop(box)
    scale = INK / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    ink = ink.resize(size, Image.Resampling.BOX)
    tile = np.zeros((SIDE, SIDE), np.float64)
    y, x = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    tile[y : y + size[1], x : x + size[0]] = np.asarray(ink)
    tile *= 255 / tile.max()  # hairlines of light faces stay visible
    step = 255 / (LEVELS - 1)
    return (np.rint(tile / step) * step).astype(np.uint8)


def build() -> tuple[list[str], dict[str, list[Tile]]]:
    """Return classes and tiles of the characters that every face of their script has."""
    classes: list[str] = []
    splits: dict[str, list[Tile]] = {name: [] for name in SPLITS}
    for script, wanted in SCRIPTS.items():
        faces = [face for face in FACES if script in face.scripts.split()]
        for character in wanted:
            lacking = [face.file for face in faces if character not in characters(face)]
            if lacking:
                print(f"left out: {character} of {script}, not in {', '.join(lacking)}")
                continue
            for face in faces:
                tile = Tile(draw(face, character), len(classes), group(face))
                splits[FAMILIES[face.family].split].append(tile)
            classes.append(character)
    return classes, splits


def main() -> None:
    classes, splits = build()
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
        missing = set(range(len(classes))) - {t.label for t in splits[name]}
        if missing:
            raise ValueError(f"no {name} image of {[classes[i] for i in sorted(missing)]}")
    faces = [face for face in FACES if face.scripts]
    of_class = [next(s for s in SCRIPTS if c in SCRIPTS[s]) for c in classes]
    card = Card(
        name="glyphs",
        title="Glyphs",
        about="A character of one of twelve scripts, drawn in white on black in one face of an "
        "open font; one image per character and face.",
        kind="classify",
        classes=classes,
        package="Debian 12 font packages, which the card lists under `fonts`",
        licence=licence(faces),
        counterpart="Omniglot",
        grouping="font family",
        extra={"scripts": of_class, "faces": len(faces), "fonts": ledger(faces)},
    )
    write(card, splits)


if __name__ == "__main__":
    main()
