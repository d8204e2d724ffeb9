"""Build `creatures`: kinds of monsters, 32×32 crops of rendered Freedoom levels.

Images: PyPI `vizdoom` with its bundled Freedoom (see doom.py). The camera is put in many places of
every level and looks at a monster; the engine's label buffer gives the monster's box, which is cut
out with some of the scene around it. Levels have few or none of some kinds, so monsters of every
kind are also summoned there (with the game's own console); those move and attack like the others.

    python tools/pocket/creatures.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from doom import GROUPING, LICENCE, PACKAGE, Play, few_colours, levels, part, quota, say_near
from numpy.typing import NDArray
from PIL import Image
from sheet import SPLITS, Card, Tile, write

SIZE = 32  # pixels, a crop's side
WANTED = {"train": 2000, "val": 400, "test": 1000}
SPARE = 1.06  # made in excess, for what drop_near takes out
CONTEXT = 1.3  # crop's side over the longer side of the monster's box
NEAREST, FARTHEST = 150, 28  # pixels of a 320×240 frame: largest and smallest crop taken
COLOURS = 42
KINDS = {  # the engine's name -> ours
    "Zombieman": "zombieman",
    "ShotgunGuy": "shotgun guy",
    "ChaingunGuy": "chaingun guy",
    "DoomImp": "imp",
    "Demon": "demon",
    "LostSoul": "lost soul",
    "Cacodemon": "cacodemon",
    "HellKnight": "hell knight",
    "Revenant": "revenant",
    "Fatso": "mancubus",
    "BaronOfHell": "baron",
    "PainElemental": "pain elemental",
}
NAMES = list(KINDS)
# the first game data has no pictures for the others
FIRST = {"Zombieman", "ShotgunGuy", "DoomImp", "Demon", "LostSoul", "Cacodemon", "BaronOfHell"}


def crop(
    frame_HW3: NDArray[np.uint8], labels_HW: NDArray[np.uint8], label: Any
) -> NDArray[np.uint8] | None:
    """Return the monster and its surroundings; None if it is cut off, hidden, tiny or huge."""
    x, y, w, h = (int(getattr(label, n)) for n in ("x", "y", "width", "height"))
    side = round(max(w, h) * CONTEXT)
    height, width = labels_HW.shape
    if not FARTHEST <= side <= NEAREST or x <= 0 or x + w >= width or y <= 0 or y + h >= height:
        return None
    box = labels_HW[y : y + h, x : x + w]
    # the buffer has 0 for walls and 1 for floors and ceilings
    seen = int((box == label.value).sum())
    others = int(((box > 1) & (box != label.value)).sum())
    if seen < 0.35 * w * h or others > 0.2 * seen:
        return None
    left = int(np.clip(x + w // 2 - side // 2, 0, width - side))
    top = int(np.clip(y + h // 2 - side // 2, 0, height - side))
    cut = frame_HW3[top : top + side, left : left + side]
    inside = cut[labels_HW[top : top + side, left : left + side] == label.value]
    if inside.mean() < 30:  # grey levels: too dark to tell what it is
        return None
    return np.asarray(Image.fromarray(cut).resize((SIZE, SIZE), Image.Resampling.BOX))


def look_around(
    play: Play, around: NDArray[np.float64], wanted: dict[int, int], group: str
) -> Iterator[Tile]:
    """Return crops of the monsters still needed, from a few random places around a point."""
    for _ in range(4):
        far, turn = play.rng.uniform(90, 420), play.rng.uniform(0, 360)
        x = around[0] - far * np.cos(np.radians(turn))
        y = around[1] - far * np.sin(np.radians(turn))
        if not play.go(float(x), float(y), float(turn + play.rng.normal(0, 18))):
            continue
        state = play.game.get_state()
        for label in state.labels:
            if label.object_name not in KINDS:
                continue
            kind = NAMES.index(label.object_name)
            if wanted.get(kind, 0) <= 0:
                continue
            image = crop(state.screen_buffer, state.labels_buffer, label)
            if image is not None:
                wanted[kind] -= 1
                yield Tile(image, kind, group)


def hunt(level: tuple[str, str], wanted: dict[int, int]) -> list[Tile]:
    """Return the needed crops from one level: of its own monsters, then of summoned ones."""
    group = "-".join(level)
    tiles: list[Tile] = []
    known = [k for k in wanted if level[0] == "freedoom2" or NAMES[k] in FIRST]
    with Play(level, 11) as play:
        for anchor in play.rng.permutation(play.anchors)[:60]:
            tiles += look_around(play, anchor, wanted, group)
        for _ in range(50):
            missing = [k for k in known if wanted[k] > 0]
            if not missing:
                break
            if not play.wander():
                continue
            kind = missing[int(play.rng.integers(len(missing)))]
            x, y, _, angle = play.camera
            play.command(f"summon {NAMES[kind]}")
            ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * 90
            for _ in range(3):
                tiles += look_around(play, np.array([x, y]) + ahead, wanted, group)
    return tiles


def gather(split: str) -> list[Tile]:
    """Return the crops of a split, of each kind evenly from the remaining levels."""
    left = dict(enumerate(quota(round(WANTED[split] * SPARE), len(NAMES))))
    tiles: list[Tile] = []
    # the levels of the second game data, which have every kind, come last and fill what is missing
    order = levels(split)
    for i, level in enumerate(order):
        rest = order[i:]
        able = {k: sum(lv[0] == "freedoom2" or NAMES[k] in FIRST for lv in rest) for k in left}
        wanted = {k: -(-3 * n // (2 * max(1, able[k]))) for k, n in left.items()}
        if level[0] == "freedoom1":
            wanted = {k: n if NAMES[k] in FIRST else 0 for k, n in wanted.items()}
        found = hunt(level, wanted)
        for tile in found:
            left[tile.label] -= 1
        tiles += found
    print(f"creatures {split}: {len(tiles)} crops, still missing {sum(left.values())}")
    return tiles


def main() -> None:
    found = {split: gather(split) for split in SPLITS}
    splits = part(found, WANTED, 5)
    for split in SPLITS:
        counts = np.bincount([t.label for t in splits[split]], minlength=len(NAMES))
        print(split, dict(zip(KINDS.values(), counts.tolist(), strict=True)))
    few_colours(splits, COLOURS)
    card = Card(
        "creatures",
        "Creatures of Freedoom",
        "Monsters of the free game Freedoom, cut out of rendered scenes with some of the scene "
        "around them: any side, distance, pose and light. Many were added to the levels with the "
        "game's console.",
        "classify",
        list(KINDS.values()),
        PACKAGE,
        LICENCE,
        "AwA",
        GROUPING,
    )
    card.extra = {"colours": COLOURS}
    write(card, splits)
    say_near("creatures", splits)


if __name__ == "__main__":
    main()
