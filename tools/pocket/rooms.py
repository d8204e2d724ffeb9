"""Build `rooms`: class, depth and surface normals at every pixel of rendered Freedoom levels.

Images: PyPI `vizdoom` with its bundled Freedoom (see doom.py). The engine's own depth buffer has 8
bits, far too few for normals. So depth and normals of walls, floors and ceilings come from casting
the camera's rays at the level's own lines and at the sectors' heights of that moment (rays.py);
creatures and items come from the engine's label buffer. What the engine's buffers say is kept in
`.pocket/rooms-SPLIT.npz`, for check_rooms.py to compare with.

A frame is every third pixel of the middle 288×192 of a 320×240 picture: nothing is blended, a
pixel is seen along one ray. Every pixel of wall, floor or ceiling lies on a plane, so that is
stored: `rooms.SPLIT.surface.webp`, in the same grid as the pictures, says for each pixel which row
of the frame's table it lies on, and `rooms.safetensors` has the tables
(`SPLIT.surfaces`, float32: class, nx, ny, nz, d) and where each frame's begins (`SPLIT.start`).
`onetrunk.data.sources.pocket` has the formula.

    python tools/pocket/rooms.py && python tools/pocket/check_rooms.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from doom import (
    GROUPING,
    LICENCE,
    MONSTER,
    NOT_THINGS,
    PACKAGE,
    Level,
    Play,
    few_colours,
    levels,
    part,
    quota,
    say_near,
)
from numpy.typing import NDArray
from PIL import Image
from rays import CEILING, CREATURE, FLOOR, ITEM, NOTHING, WALL, cast
from safetensors.numpy import save
from sheet import ASSETS, SPLITS, WORK, Card, Tile, write

HEIGHT, WIDTH = 64, 96
WANTED = {"train": 730, "val": 140, "test": 280}
SPARE = 1.05  # made in excess, for what drop_near takes out
COLOURS = 32
CLASSES = ["wall", "floor", "ceiling", "creature", "item"]
METRE = 32.0  # map units
STRIDE, LEFT, TOP = 3, 17, 25  # frame pixel (v, u) is picture pixel (TOP + 3v, LEFT + 3u)
# of the 320×240 picture, in its pixels: found by comparing cast depth and class with the engine's
# buffers on three levels. The engine stretches heights by 1.2; the centre is not quite the middle.
FX, FY, CX, CY = 160.5, 192.0, 159.75, 119.0
CAMERA = {
    "fx": FX / STRIDE,
    "fy": FY / STRIDE,
    "cx": (CX - LEFT) / STRIDE,
    "cy": (CY - TOP) / STRIDE,
}
SUMMONED = ("Zombieman", "ShotgunGuy", "DoomImp", "Demon", "Cacodemon", "BaronOfHell")


Row = tuple[float, float, float, float, float]  # class, nx, ny, nz, d
View = tuple[float, float, float, float]  # x, y, z in map units, angle in degrees


@dataclass
class Room:
    """A frame with its targets."""

    tile: Tile
    surface_HW: NDArray[np.uint8]
    table_K5: NDArray[np.float32]
    # for the checks: what the engine says, and what it takes to cast the rays anew
    engine_depth_HW: NDArray[np.uint8]
    engine_labels_HW: NDArray[np.uint8]
    view: NDArray[np.float64]  # x, y, z, angle
    heights_S2: NDArray[np.float64]  # floor and ceiling of each sector


def thin(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows = slice(TOP, TOP + STRIDE * HEIGHT, STRIDE)
    return picture[rows, LEFT : LEFT + STRIDE * WIDTH : STRIDE].copy()


def of_actor(label: Any, eye_2: NDArray[np.float64], ahead_2: NDArray[np.float64]) -> Row:
    """Return the row of the table for a creature or an item: its class and its depth."""
    place = np.array([label.object_position_x, label.object_position_y])
    far = float((place - eye_2) @ ahead_2) / METRE
    if label.object_category in NOT_THINGS or far <= 0:
        return (NOTHING, 0, 0, 0, 0)
    return (CREATURE if label.object_category == MONSTER else ITEM, 0, 0, 0, far)


def of_plane(
    level: Level, heights_S2: NDArray[np.float64], view: View, kind: int, owner: int
) -> Row:
    """Return the row of the table for a wall, floor or ceiling: class and plane (camera frame)."""
    x, y, z, angle = view
    if kind == FLOOR:
        return (FLOOR, 0, 1, 0, (heights_S2[owner, 0] - z) / METRE)
    if kind == CEILING:
        return (CEILING, 0, -1, 0, (z - heights_S2[owner, 1]) / METRE)
    if kind == NOTHING:
        return (NOTHING, 0, 0, 0, 0)
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    right = np.array([ahead[1], -ahead[0]])
    a, b = level.vertices_V2[level.ends_L2[owner]] - (x, y)
    normal = np.array([a[1] - b[1], b[0] - a[0]]) / np.hypot(*(b - a))
    if normal @ a > 0:  # towards the camera, which is the origin here
        normal = -normal
    return (WALL, float(normal @ right), 0, -float(normal @ ahead), float(normal @ a) / METRE)


def describe(play: Play, group: str) -> Room | None:
    """Return the current frame, or None if it shows too little."""
    state = play.game.get_state()
    image, labels = thin(state.screen_buffer), thin(state.labels_buffer)
    if not 28 <= image.mean() <= 170:  # too dark to see, or a screen effect
        return None
    level, view = play.level, play.camera
    heights = np.array([(s.floor_height, s.ceiling_height) for s in state.sectors], np.float64)
    here = level.sector_at(view[0], view[1])
    if view[2] - heights[here, 0] < 30 or heights[here, 1] - view[2] < 12:
        return None  # squeezed in, with the eyes at the floor or the ceiling
    across = (np.arange(WIDTH, dtype=np.float64) - CAMERA["cx"]) / CAMERA["fx"]
    down = (np.arange(HEIGHT, dtype=np.float64) - CAMERA["cy"]) / CAMERA["fy"]
    hits = cast(level, heights[:, 0], heights[:, 1], view, across, down)
    x, y, _, angle = view
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])

    # one number for all pixels of one actor, or of one line or sector; then one row for each
    actors = {label.value: label for label in state.labels}
    acted = np.isin(labels, list(actors))
    key = (hits.segment_HW.astype(np.int64) << 32) + hits.owner_HW
    key = np.where(acted, -1 - labels.astype(np.int64), key)
    keys, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    rows: dict[tuple[float, ...], int] = {}
    index = np.zeros(len(keys), np.int64)
    for i in np.argsort(first):  # rows in the order in which the pixels meet them
        pixel = np.unravel_index(first[i], key.shape)
        if acted[pixel]:
            values = of_actor(actors[int(labels[pixel])], np.array([x, y]), ahead)
        else:
            kind, owner = int(hits.segment_HW[pixel]), int(hits.owner_HW[pixel])
            values = of_plane(level, heights, view, kind, owner)
        # coplanar neighbours share a row
        index[i] = rows.setdefault(tuple(round(float(v), 5) + 0.0 for v in values), len(rows))
    if len(rows) > 254:
        return None
    surface = index[inverse].reshape(key.shape).astype(np.uint8)
    table = np.array(list(rows), np.float32)
    segment = table[surface, 0].astype(np.uint8)
    shares = np.bincount(segment.ravel(), minlength=256) / segment.size
    solid = segment <= CEILING
    if (
        shares[NOTHING] > 0.12  # sky, grates
        or shares[WALL] > 0.85
        or shares[FLOOR] < 0.04
        or shares[CREATURE] + shares[ITEM] > 0.5
        or np.median(hits.depth_HW[solid]) < 2 * METRE
    ):
        return None
    return Room(
        Tile(image, 0, group),
        surface,
        table,
        thin(state.depth_buffer),
        labels,
        np.array(view),
        heights,
    )


def as_drawn(room: Room) -> bool:
    """Return whether the engine draws the geometry, which missing textures can prevent."""
    segment = room.table_K5[room.surface_HW, 0]
    solid = segment <= CEILING
    flat = room.engine_labels_HW[solid] == 1  # the label buffer has 0 for walls, 1 for flats
    return bool(((segment[solid] != WALL) == flat).mean() >= 0.97)


def visit(level: tuple[str, str], wanted: int, seed: int) -> tuple[list[Room], list[Room]]:
    """Return frames from one level, and the number left out because the drawing differs."""
    group = "-".join(level)
    rooms: list[Room] = []
    odd: list[Room] = []
    with Play(level, seed, depth=True, sectors=True) as play:
        for attempt in range(wanted * 12):
            if len(rooms) >= wanted:
                break
            if not play.wander():
                continue
            labels = play.game.get_state().labels
            if attempt % 2 and not any(label.object_category == MONSTER for label in labels):
                kind = SUMMONED[int(play.rng.integers(len(SUMMONED)))]
                x, y, _, angle = play.camera
                play.command(f"summon {kind}")
                # a step back, where there is room for one: else it fills the picture
                back = play.rng.uniform(40, 220) * np.array(
                    [np.cos(np.radians(angle)), np.sin(np.radians(angle))]
                )
                play.go(x - back[0], y - back[1], angle + float(play.rng.normal(0, 15)))
                if play.game.is_episode_finished():
                    break
            room = describe(play, group)
            if room is not None:
                (rooms if as_drawn(room) else odd).append(room)
    return rooms, odd


def gather(split: str) -> list[Room]:
    """Return the frames of a split, evenly from its levels; other levels fill gaps."""
    found: list[Room] = []
    odd: list[Room] = []
    total = round(WANTED[split] * SPARE)
    for seed in (31, 32, 33):
        order = levels(split)
        for level, wanted in zip(order, quota(total - len(found), len(order)), strict=True):
            if wanted:
                kept, dropped = visit(level, wanted, seed)
                found += kept
                odd += dropped
        if len(found) >= total:
            break
    share = len(odd) / (len(odd) + len(found))
    print(f"rooms {split}: {len(found)} frames; {share:.1%} more left out: the drawing differs")
    keep(split + "-odd", odd)
    return found


def keep(name: str, rooms: list[Room]) -> None:
    """Store what the check compares with; it is not part of the package."""
    sizes = np.cumsum([0] + [len(r.table_K5) for r in rooms])
    np.savez(
        WORK / f"rooms-{name}.npz",
        depth=np.array([r.engine_depth_HW for r in rooms]),
        labels=np.array([r.engine_labels_HW for r in rooms]),
        view=np.array([r.view for r in rooms]),
        level=np.array([r.tile.group for r in rooms]),
        heights=np.concatenate([r.heights_S2 for r in rooms]) if rooms else np.zeros((0, 2)),
        sectors=np.cumsum([0] + [len(r.heights_S2) for r in rooms]),
        surface=np.array([r.surface_HW for r in rooms]),
        tables=np.concatenate([r.table_K5 for r in rooms]) if rooms else np.zeros((0, 5)),
        start=sizes,
    )


def write_surfaces(splits: dict[str, list[Room]]) -> int:
    """Write surface sheets, in the grid of the image sheets, and tables; return their bytes."""
    document = json.loads((ASSETS / "rooms.json").read_text("utf-8"))
    tensors: dict[str, NDArray[np.generic]] = {}
    total = 0
    for split, rooms in splits.items():
        columns = document["splits"][split]["columns"]
        sheet = np.zeros((-(-len(rooms) // columns) * HEIGHT, columns * WIDTH), np.uint8)
        for i, room in enumerate(rooms):
            y, x = i // columns * HEIGHT, i % columns * WIDTH
            sheet[y : y + HEIGHT, x : x + WIDTH] = room.surface_HW
        path = ASSETS / f"rooms.{split}.surface.webp"
        picture = Image.fromarray(sheet).convert("RGB")  # three equal channels: WebP has no grey
        picture.save(path, lossless=True, quality=100, method=6, exact=True)
        total += path.stat().st_size
        tensors[f"{split}.surfaces"] = np.concatenate([r.table_K5 for r in rooms])
        tensors[f"{split}.start"] = np.cumsum([0] + [len(r.table_K5) for r in rooms]).astype(
            np.int32
        )
    data = save(tensors)
    (ASSETS / "rooms.safetensors").write_bytes(data)
    return total + len(data)


def main() -> None:
    found = {split: gather(split) for split in SPLITS}
    by_tile = {id(r.tile): r for rooms in found.values() for r in rooms}
    tiles = {split: [r.tile for r in rooms] for split, rooms in found.items()}
    tiles = part(tiles, WANTED, 6)
    rooms = {split: [by_tile[id(t)] for t in some] for split, some in tiles.items()}
    for split in SPLITS:
        keep(split, rooms[split])
    few_colours(tiles, COLOURS)
    card = Card(
        "rooms",
        "Rooms of Freedoom",
        "Views inside the levels of the free game Freedoom, with class, depth and surface normal "
        "of every pixel, computed from the levels' own geometry. Some creatures were added with "
        "the game's console.",
        "dense",
        CLASSES,
        PACKAGE,
        LICENCE,
        "NYU-v2",
        GROUPING,
        {
            "colours": COLOURS,
            "camera": CAMERA,
            "surfaces": {
                "map": "rooms.SPLIT.surface.webp: three equal channels, the pictures' grid; "
                "a pixel's row in the frame's table",
                "tables": "rooms.safetensors: SPLIT.surfaces float32 (K, 5) = class, nx, ny, nz, "
                "d; frame i has the rows SPLIT.start[i] to SPLIT.start[i + 1]",
                "frame": "x right, y up, z towards the viewer; unit normals, towards the camera",
                "depth": "z = d / (n·r), r = ((u - cx)/fx, -(v - cy)/fy, -1), along the optical "
                "axis; where n = 0 (creature, item) z = d; class 255 (sky, grates, effects): none",
                "unit": "metre, taken as 32 map units",
            },
            "ignore": NOTHING,
        },
    )
    total = write(card, tiles) + write_surfaces(rooms)
    print(f"rooms: {total / 1e6:.2f} MB with the surfaces")
    say_near("rooms", tiles)


if __name__ == "__main__":
    main()
