"""Freedoom levels rendered by ViZDoom: functions that creatures, encounter and rooms share.

Images come from the PyPI package `vizdoom` (MIT; the engine within is ZDoom), which bundles the
free game data Freedoom: `freedoom1.wad` (36 levels) and `freedoom2.wad` (32 levels). Freedoom is
under the three-clause BSD licence; the wheel does not carry its text, so the text that Debian's
package `freedoom` 0.12.1-2 (another version of the game) has stands beside the sheets as
`freedoom-license.txt`. Install vizdoom for these tools only:

    python3 -m uv pip install --no-deps --target .pocket/site vizdoom==1.3.2

A level is wholly in one split, the same split in all three domains. The engine runs in step with
us and every seed is fixed, so that the same package gives the same bytes.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sheet import WORK, Tile, drop_near

from onetrunk.data.duplicates import near_pairs, thumbnail

sys.path.insert(0, str(WORK / "site"))
import vizdoom as vzd

PACKAGE = "PyPI vizdoom 1.3.2 with its bundled freedoom1.wad and freedoom2.wad"
LICENCE = (
    "Freedoom: BSD-3-Clause, (c) Contributors to the Freedoom project, text in "
    "freedoom-license.txt; rendered by ViZDoom, whose own code is MIT"
)
GROUPING = "level (map) of the game: all images of a level are in one split"
LEVELS = [("freedoom1", f"E{e}M{m}") for e in range(1, 5) for m in range(1, 10)]
LEVELS += [("freedoom2", f"MAP{m:02d}") for m in range(1, 33)]

MONSTER = "Monster"
# effects, blood, missiles, the camera: neither creature nor item
NOT_THINGS = {"Self", "SFX", "Player", "Internal", "Gibs", "Gore", "Explosive"}


def split_of(level: tuple[str, str]) -> str:
    """Return the split of a level: of ten levels, six are train, one is val and three are test."""
    return ("train", "test", "train", "val", "train", "test", "train", "train", "test", "train")[
        LEVELS.index(level) % 10
    ]


def levels(split: str) -> list[tuple[str, str]]:
    return [level for level in LEVELS if split_of(level) == split]


@dataclass
class Level:
    """The geometry of a level in the game file: lengths in map units, -1 for an absent side."""

    vertices_V2: NDArray[np.float64]
    ends_L2: NDArray[np.int64]  # line -> its two vertices
    sides_L2: NDArray[np.int64]  # line -> sector on its right, sector on its left, -1 for the void
    middle_L: NDArray[np.bool_]  # a texture hangs in the line's opening (grate, fence)
    sky_floor_S: NDArray[np.bool_]
    sky_ceiling_S: NDArray[np.bool_]
    floor_S: NDArray[np.float64]  # heights when the level begins
    ceiling_S: NDArray[np.float64]
    things_T3: NDArray[np.int64]  # x, y, number of the kind

    def sector_at(self, x: float, y: float) -> int:
        """Return the sector around a point, by the nearest line on a ray; -1 in the void."""
        dx, dy = np.cos(0.7371), np.sin(0.7371)  # no line of a grid-drawn level has this slope
        a = self.vertices_V2[self.ends_L2[:, 0]]
        e = self.vertices_V2[self.ends_L2[:, 1]] - a
        cross = dx * e[:, 1] - dy * e[:, 0]
        cross = np.where(cross == 0, 1e-12, cross)
        wx, wy = a[:, 0] - x, a[:, 1] - y
        t = (wx * e[:, 1] - wy * e[:, 0]) / cross
        s = (wx * dy - wy * dx) / cross
        t = np.where((s >= 0) & (s <= 1) & (t > 0), t, np.inf)
        line = int(np.argmin(t))
        if not np.isfinite(t[line]):
            return -1
        # where the line runs to the left across our ray, we stand on its left
        return int(self.sides_L2[line, 1 if cross[line] > 0 else 0])


def wad(game: str) -> Path:
    return Path(vzd.__file__).parent / f"{game}.wad"


@cache
def read_level(game: str, name: str) -> Level:
    """Parse one level's lumps (the Doom format: little-endian records of fixed size)."""
    data = wad(game).read_bytes()
    count, offset = struct.unpack("<ii", data[4:12])
    entries = [struct.unpack("<ii8s", data[offset + 16 * i :][:16]) for i in range(count)]
    names = [entry[2].rstrip(b"\0").decode("latin1") for entry in entries]
    start = names.index(name)

    def lump(of: str, dtype: list[tuple[str, str]]) -> NDArray[Any]:
        at, size, _ = entries[names.index(of, start)]
        return np.frombuffer(data[at : at + size], dtype)

    vertices = lump("VERTEXES", [("x", "<i2"), ("y", "<i2")])
    lines = lump(
        "LINEDEFS",
        [(n, "<u2") for n in ("v1", "v2", "flags", "special", "tag", "right", "left")],
    )
    sides = lump(
        "SIDEDEFS",
        [
            ("x", "<i2"),
            ("y", "<i2"),
            ("up", "S8"),
            ("low", "S8"),
            ("mid", "S8"),
            ("sector", "<u2"),
        ],
    )
    sectors = lump(
        "SECTORS",
        [
            ("floor", "<i2"),
            ("ceiling", "<i2"),
            ("floor_pic", "S8"),
            ("ceiling_pic", "S8"),
            ("light", "<i2"),
            ("special", "<i2"),
            ("tag", "<i2"),
        ],
    )
    things = lump("THINGS", [(n, "<i2") for n in ("x", "y", "angle", "kind", "flags")])

    def sector_of(side: NDArray[Any]) -> NDArray[np.int64]:
        there = side != 0xFFFF
        found = sides["sector"][np.where(there, side, 0)].astype(np.int64)
        return np.where(there, found, -1)

    both = (lines["right"] != 0xFFFF) & (lines["left"] != 0xFFFF)
    right = np.where(lines["right"] != 0xFFFF, lines["right"], 0)
    left = np.where(lines["left"] != 0xFFFF, lines["left"], 0)
    hung = (sides["mid"][right] != b"-") | (sides["mid"][left] != b"-")
    return Level(
        np.stack([vertices["x"], vertices["y"]], 1).astype(np.float64),
        np.stack([lines["v1"], lines["v2"]], 1).astype(np.int64),
        np.stack([sector_of(lines["right"]), sector_of(lines["left"])], 1),
        both & hung,
        sectors["floor_pic"] == b"F_SKY1",
        sectors["ceiling_pic"] == b"F_SKY1",
        sectors["floor"].astype(np.float64),
        sectors["ceiling"].astype(np.float64),
        np.stack([things["x"], things["y"], things["kind"]], 1).astype(np.int64),
    )


CAMERA = (
    vzd.GameVariable.CAMERA_POSITION_X,
    vzd.GameVariable.CAMERA_POSITION_Y,
    vzd.GameVariable.CAMERA_POSITION_Z,
    vzd.GameVariable.CAMERA_ANGLE,
    vzd.GameVariable.VIEW_HEIGHT,
)


class Play:
    """A game on one level, advanced step by step; only the scene is drawn."""

    def __init__(
        self,
        level: tuple[str, str],
        seed: int,
        *,
        small: bool = False,
        depth: bool = False,
        sectors: bool = False,
    ):
        self.level = read_level(*level)
        self.rng = np.random.default_rng([seed, LEVELS.index(level)])
        game = vzd.DoomGame()
        game.set_doom_game_path(str(wad(level[0])))
        game.set_doom_map(level[1])
        # a fresh one: what an earlier game left in it must not change this one
        self.settings = WORK / f"vizdoom-{os.getpid()}.ini"
        self.settings.unlink(missing_ok=True)
        game.set_doom_config_path(str(self.settings))
        size = vzd.ScreenResolution.RES_160X120 if small else vzd.ScreenResolution.RES_320X240
        game.set_screen_resolution(size)
        game.set_screen_format(vzd.ScreenFormat.RGB24)
        game.set_labels_buffer_enabled(True)
        game.set_depth_buffer_enabled(depth)
        game.set_sectors_info_enabled(sectors)
        for what in (
            "hud",
            "weapon",
            "crosshair",
            "decals",
            "particles",
            "effects_sprites",
            "messages",
            "corpses",
            "screen_flashes",
        ):
            getattr(game, f"set_render_{what}")(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_available_game_variables(list(CAMERA))
        game.set_available_buttons([vzd.Button.TURN_LEFT_RIGHT_DELTA])
        game.set_mode(vzd.Mode.PLAYER)
        game.set_episode_timeout(0)
        game.set_seed(1 + seed * 1000 + LEVELS.index(level))
        game.set_doom_skill(4)
        # "A secret is revealed!" is written across the picture otherwise
        game.add_game_args("+cl_showsecretmessage 0 +con_midtime 0 +con_notifytime 0")
        game.init()
        game.send_game_command("god")
        game.make_action([0.0], 2)
        self.game = game
        anchors = self.level.things_T3[:, :2].astype(np.float64)
        self.anchors = anchors[[self.level.sector_at(x, y) >= 0 for x, y in anchors]]

    def __enter__(self) -> Play:
        return self

    def __exit__(self, *_: object) -> None:
        self.game.close()
        self.settings.unlink(missing_ok=True)

    def command(self, text: str) -> None:
        self.game.send_game_command(text)
        self.wait(1)

    def wait(self, tics: int) -> None:
        if tics and not self.game.is_episode_finished():
            self.game.make_action([0.0], tics)

    @property
    def camera(self) -> tuple[float, float, float, float]:
        """Return x, y, z in map units and the angle in degrees, anticlockwise from east."""
        x, y, z, angle = (float(self.game.get_game_variable(of)) for of in CAMERA[:4])
        return x, y, z, angle

    def go(self, x: float, y: float, angle: float) -> bool:
        """Place and turn the camera; return False if the game did not allow it."""
        if self.game.is_episode_finished() or self.level.sector_at(x, y) < 0:
            return False
        self.game.send_game_command(f"warp {x:.1f} {y:.1f}")
        self.wait(1)
        here = self.camera
        if abs(here[0] - x) > 1 or abs(here[1] - y) > 1:
            return False
        # the button turns to the right, and rounds: what counts is the angle read back later
        turn = (here[3] - angle + 180) % 360 - 180
        self.game.make_action([turn], 1)
        self.wait(12)  # the eyes rise or sink to their height above the new floor
        if self.game.is_episode_finished() or self.game.is_player_dead():
            return False
        return abs(float(self.game.get_game_variable(CAMERA[4])) - 41) < 0.5

    def wander(self, spread: float = 160.0) -> bool:
        """Go to a random place near one of the level's things, with a random view."""
        anchor = self.anchors[self.rng.integers(len(self.anchors))]
        x, y = anchor + self.rng.normal(0, spread, 2)
        return self.go(float(x), float(y), float(self.rng.uniform(0, 360)))


def few_colours(splits: dict[str, list[Tile]], count: int) -> None:
    """Paint all tiles in the `count` colours that suit those of train best: half the bytes.

    The game itself has 256 colours, most of them dark shades of one another.
    """
    pixels = np.concatenate([t.image.reshape(-1, 3)[::7] for t in splits["train"]])
    whole = Image.fromarray(pixels[None])
    palette = whole.quantize(count, kmeans=5, dither=Image.Dither.NONE)
    for tiles in splits.values():
        for tile in tiles:
            few = Image.fromarray(tile.image).quantize(palette=palette, dither=Image.Dither.NONE)
            tile.image = np.asarray(few.convert("RGB"))


def part(found: dict[str, list[Tile]], wanted: dict[str, int], seed: int) -> dict[str, list[Tile]]:
    """Return the tiles without near duplicates across splits, at most as many as requested."""
    val, test = drop_near(found["train"], found["val"], found["test"])
    splits = {"train": found["train"], "val": val, "test": test}
    for split, tiles in splits.items():
        order = np.random.default_rng(seed).permutation(len(tiles))[: wanted[split]]
        splits[split] = [tiles[i] for i in sorted(order)]
    return splits


def say_near(name: str, splits: dict[str, list[Tile]]) -> None:
    """Print how many test images of a written domain are near a training image."""
    train, test = (np.stack([thumbnail(t.image) for t in splits[s]]) for s in ("train", "test"))
    near = len(np.unique(near_pairs(test, train)[:, 0]))
    print(f"{name}: {near} of {len(test)} test images near a training image")


def quota(total: int, parts: int) -> Iterator[int]:
    """Divide `total` evenly; the first parts get the remainder."""
    for i in range(parts):
        yield total // parts + (i < total % parts)
