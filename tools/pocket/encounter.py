"""Build `encounter`: small grey frames with or without a creature; most have none.

Images: PyPI `vizdoom` with its bundled Freedoom (see doom.py). The camera is placed at random
positions of every level with a random view. The engine's label buffer tells how much of the frame
is monster: with one hundredth or more a creature is in view, and a frame with less, but some, is
left out. Nothing is summoned: these are the creatures of the levels.

    python tools/pocket/encounter.py
"""

from __future__ import annotations

import numpy as np
from doom import GROUPING, LICENCE, MONSTER, PACKAGE, Play, levels, part, quota, say_near
from numpy.typing import NDArray
from PIL import Image
from sheet import SPLITS, Card, Tile, write

HEIGHT, WIDTH = 24, 32
WANTED = {"train": 2000, "val": 400, "test": 1000}
SPARE = 1.06  # made in excess, for what drop_near takes out
ODDS = 8  # frames without a creature for one with
IN_VIEW = 0.01  # of the frame
GREYS = 64
CLOSE = 12  # levels of the engine's depth buffer, 7 map units each: about 3 metres


def small(frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey 24×32 frame, brightened (the game is dark), in few greys to halve the bytes."""
    picture = Image.fromarray(frame_HW3).convert("L")
    shrunk = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    bright = 255 * np.sqrt(np.asarray(shrunk) / 255)
    step = 256 // GREYS
    return (bright // step * step + step // 2).astype(np.uint8)


def watch(level: tuple[str, str], wanted: list[int], seed: int) -> list[Tile]:
    """Return frames from one level, up to the requested numbers without and with a creature."""
    group = "-".join(level)
    tiles: list[Tile] = []
    left = list(wanted)
    with Play(level, seed, small=True, depth=True) as play:
        for _ in range(sum(wanted) * 8):
            if sum(left) == 0:
                break
            if not play.wander():
                continue
            state = play.game.get_state()
            if state.screen_buffer.mean() < 15:  # too dark to see anything
                continue
            if np.median(state.depth_buffer) < CLOSE:  # nose to a wall: nothing to see
                continue
            values = [label.value for label in state.labels if label.object_category == MONSTER]
            share = np.isin(state.labels_buffer, values).mean()
            if 0 < share < IN_VIEW:
                continue
            label = int(share > 0)
            if left[label] > 0:
                left[label] -= 1
                tiles.append(Tile(small(state.screen_buffer), label, group))
    return tiles


def gather(split: str) -> list[Tile]:
    """Return the frames of a split, evenly from its levels; other levels fill gaps."""
    total = round(WANTED[split] * SPARE)
    target = [total - total // (ODDS + 1), total // (ODDS + 1)]
    tiles: list[Tile] = []
    for seed in (21, 22):
        order = levels(split)
        have = np.bincount([t.label for t in tiles], minlength=2)
        shares = [list(quota(target[k] - int(have[k]), len(order))) for k in (0, 1)]
        for i, level in enumerate(order):
            if shares[0][i] + shares[1][i]:
                tiles += watch(level, [shares[0][i], shares[1][i]], seed)
        if len(tiles) >= total:
            break
    return tiles


def main() -> None:
    found = {split: gather(split) for split in SPLITS}
    splits = part(found, WANTED, 7)
    for split in SPLITS:
        print(split, np.bincount([t.label for t in splits[split]], minlength=2).tolist())
    card = Card(
        "encounter",
        "Encounters in Freedoom",
        "Small grey views inside the levels of the free game Freedoom: the class is whether a "
        "creature covers at least one hundredth of the picture, as in one of nine images.",
        "classify",
        ["none", "creature"],
        PACKAGE,
        LICENCE,
        "Daimler pedestrians",
        GROUPING,
        {"greys": GREYS, "in_view": IN_VIEW},
    )
    write(card, splits)
    say_near("encounter", splits)


if __name__ == "__main__":
    main()
