"""Check `rooms`: compare the stored targets with the engine and with a slow, simple ray caster.

Prints, for the test frames (or those of the split named on the command line):

- how much of the pictures each class covers, and in how many frames it is at all;
- wall or flat (floor, ceiling): what the engine's label buffer says, over all pixels;
- depth against the engine's 8-bit depth buffer, which none of the shipped depth comes from: its
  unit and zero are found by a straight line per class, then a pixel agrees if it is at most one
  level off (walls farther than 29 m are all at level 127, flats farther than 57 m at 255);
- normals and depth against brute force at random pixels: every line of the level and both planes of
  every sector are tried, with the outlines that the engine tells (not those we read from the game
  file), without order, openings or neighbours, and the nearest hit is taken;
- normals against planes fitted to the engine's depth buffer, on large surfaces: with so few levels
  a rough check, but one that knows nothing of our geometry;
- normals against cross products of neighbouring points: that the map agrees with itself.

"Away from edges" are the pixels whose eight neighbours lie on the same surface.

    python tools/pocket/check_rooms.py [SPLIT]
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from doom import Play
from numpy.typing import NDArray
from PIL import Image
from rooms import CAMERA, CLASSES, HEIGHT, METRE, WIDTH
from safetensors.numpy import load_file
from sheet import ASSETS, WORK

from onetrunk.data.sources.pocket import decode

F64 = NDArray[np.float64]
ANGLE = 5.0  # degrees: a normal nearer than this is right
RAYS = 2000  # brute-force pixels
LAST = (127, 255, 255)  # the engine's buffer ends here, for walls, floors, ceilings
LARGE = 300  # pixels away from edges: a surface worth a fit


@dataclass
class Shipped:
    """The decoded frames of a split, and what the build stored for the check, frame by frame."""

    surface_NHW: NDArray[np.uint8]
    segment_NHW: NDArray[np.uint8]
    depth_NHW: NDArray[np.float32]
    normals_NHW3: NDArray[np.float32]
    inside_NHW: NDArray[np.bool_]
    kept: dict[str, NDArray[Any]]


def inner(surface_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    same = np.zeros(surface_HW.shape, bool)
    same[1:-1, 1:-1] = True
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            same &= np.roll(surface_HW, (dy, dx), (0, 1)) == surface_HW
    return same


def load(split: str) -> Shipped:
    document = json.loads((ASSETS / "rooms.json").read_text("utf-8"))
    columns, count = (document["splits"][split][k] for k in ("columns", "count"))
    sheet = np.asarray(Image.open(ASSETS / f"rooms.{split}.surface.webp"))[..., 0]
    tables = load_file(ASSETS / "rooms.safetensors")
    rows, start = tables[f"{split}.surfaces"], tables[f"{split}.start"]
    surfaces, decoded = [], []
    for i in range(count):
        y, x = i // columns * HEIGHT, i % columns * WIDTH
        surface = sheet[y : y + HEIGHT, x : x + WIDTH]
        surfaces.append(surface)
        decoded.append(decode(surface, rows[start[i] : start[i + 1]], document["camera"]))
    return Shipped(
        np.array(surfaces),
        np.array([d[0] for d in decoded]),
        np.array([d[1] for d in decoded]),
        np.array([d[2] for d in decoded]),
        np.array([inner(s) for s in surfaces]),
        dict(np.load(WORK / f"rooms-{split}.npz")),
    )


def directions() -> F64:
    """Return the ray of each pixel, with −1 along the optical axis."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    across = (u - CAMERA["cx"]) / CAMERA["fx"]
    return np.stack([across, -(v - CAMERA["cy"]) / CAMERA["fy"], np.full(u.shape, -1.0)], -1)


def angle_between(a: F64, b: F64) -> F64:
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def shares(s: Shipped) -> None:
    for k, name in [*enumerate(CLASSES), (255, "not labelled")]:
        pixels = (s.segment_NHW == k).mean()
        frames = (s.segment_NHW == k).any((1, 2)).mean()
        print(f"  {name}: {pixels:.1%} of pixels, in {frames:.0%} of frames")


def against_labels(s: Shipped) -> None:
    said = s.kept["labels"]
    solid = s.segment_NHW <= 2
    agree = (s.segment_NHW[solid] > 0) == (said[solid] == 1)
    print(f"wall or flat as in the engine's label buffer: {agree.mean():.2%} of all such pixels")


def against_depth(s: Shipped) -> F64:
    """Print the agreement; return the depth of the engine's levels in metres, 0 for unknown."""
    level = s.kept["depth"].astype(np.float64)
    metres = np.zeros(level.shape)
    for k, last in enumerate(LAST):
        mine = (s.segment_NHW == k) & s.inside_NHW
        x, y = level[mine], s.depth_NHW[mine].astype(np.float64)
        slope, zero = float(np.median(y[x > 0] / x[x > 0])), 0.0
        for _ in range(6):  # a straight line, without what is far off it or beyond the last level
            near = (x > 1) & (x < last) & (np.abs(y - slope * x - zero) < 2 * slope)
            slope, zero = np.polyfit(x[near], y[near], 1)
        expected = np.clip((y - zero) / slope, 0, last)
        off = np.abs(expected - x)
        usable = (s.segment_NHW == k) & (level > 1) & (level < last)
        metres[usable] = slope * level[usable] + zero
        print(
            f"depth, {CLASSES[k]}: {(off <= 1).mean():.2%} within one level "
            f"({(off <= 0.6).mean():.2%} within 0.6) of {len(x)} pixels; {(x == last).mean():.1%} "
            f"at the last level; one level is {slope * METRE:.2f} map units, level 0 is at "
            f"{zero * METRE:.2f}"
        )
    return metres


@dataclass
class Outline:
    """The engine's list of the lines of each sector, flat: one row for each sector and line."""

    sector_P: NDArray[np.int64]
    ends_P4: F64
    # every distinct line with the one or two sectors that list it (the same twice for one)
    lines_L4: F64
    sectors_L2: NDArray[np.int64]
    single_L: NDArray[np.bool_]


def outline(group: str) -> Outline:
    game, name = group.split("-")
    with Play((game, name), 1, sectors=True) as play:
        sectors = play.game.get_state().sectors
        rows = [
            (i, line.x1, line.y1, line.x2, line.y2)
            for i, sector in enumerate(sectors)
            for line in sector.lines
        ]
    owners: dict[tuple[float, ...], list[int]] = {}
    for i, x1, y1, x2, y2 in rows:
        owners.setdefault((*min((x1, y1), (x2, y2)), *max((x1, y1), (x2, y2))), []).append(int(i))
    table = np.array(rows)
    return Outline(
        table[:, 0].astype(np.int64),
        table[:, 1:],
        np.array(list(owners)),
        np.array([(o[0], o[-1]) for o in owners.values()]),
        np.array([len(o) == 1 for o in owners.values()]),
    )


def brute(o: Outline, heights_S2: F64, view: F64, ray: F64) -> tuple[float, F64]:
    """Return depth in map units and normal (camera frame) of the nearest surface on a ray."""
    eye, turn = view[:3], np.radians(view[3])
    ahead, right = np.array([np.cos(turn), np.sin(turn)]), np.array([np.sin(turn), -np.cos(turn)])
    flat = ahead + ray[0] * right  # plan direction per unit of depth
    best, normal = np.inf, np.zeros(3)
    # every line: solve eye + t·flat = a + s·(b − a)
    a, run = o.lines_L4[:, :2] - eye[:2], o.lines_L4[:, 2:] - o.lines_L4[:, :2]
    across = flat[0] * run[:, 1] - flat[1] * run[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (a[:, 0] * run[:, 1] - a[:, 1] * run[:, 0]) / across
        s = (a[:, 0] * flat[1] - a[:, 1] * flat[0]) / across
    high = eye[2] + t * ray[1]
    both = heights_S2[o.sectors_L2]  # (L, 2 sectors, floor and ceiling)
    closed = (high < both[:, :, 0].max(1)) | (high > both[:, :, 1].min(1)) | o.single_L
    t = np.where((s >= 0) & (s <= 1) & (t > 1e-6) & closed, t, np.inf)
    i = int(np.argmin(t))
    if t[i] < best:
        best = float(t[i])
        side = np.array([run[i, 1], -run[i, 0]]) / np.hypot(*run[i])
        side = -side if side @ flat > 0 else side
        normal = np.array([side @ right, 0.0, -(side @ ahead)])
    # both planes of every sector: is the point where the ray meets the plane inside the outline?
    for plane, up in ((0, 1.0), (1, -1.0)):
        if ray[1] * up >= 0:
            continue
        t = (heights_S2[:, plane] - eye[2]) / ray[1]
        point = eye[:2] + t[:, None] * flat
        p, e = point[o.sector_P], o.ends_P4
        above = (e[:, 1] > p[:, 1]) != (e[:, 3] > p[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            x = e[:, 0] + (p[:, 1] - e[:, 1]) / (e[:, 3] - e[:, 1]) * (e[:, 2] - e[:, 0])
        crossings = np.bincount(o.sector_P, above & (x > p[:, 0]), len(heights_S2)).astype(int)
        t = np.where((crossings % 2 == 1) & (t > 1e-6), t, np.inf)
        i = int(np.argmin(t))
        if t[i] < best:
            best, normal = float(t[i]), np.array([0.0, up, 0.0])
    return best, normal


def against_brute(s: Shipped) -> None:
    rng = np.random.default_rng(17)
    where = np.argwhere((s.segment_NHW <= 1) & s.inside_NHW)
    where = where[rng.choice(len(where), RAYS, replace=False)]
    names, rays = s.kept["level"], directions()
    right = close = 0
    outlines = {str(name): outline(str(name)) for name in np.unique(names[where[:, 0]])}
    for i, v, u in where:
        heights = s.kept["heights"][s.kept["sectors"][i] : s.kept["sectors"][i + 1]]
        depth, normal = brute(outlines[str(names[i])], heights, s.kept["view"][i], rays[v, u])
        stored = s.normals_NHW3[i, v, u].astype(np.float64)
        right += bool(angle_between(stored, normal) <= ANGLE)
        close += bool(abs(s.depth_NHW[i, v, u] * METRE / depth - 1) < 0.01)
    print(
        f"brute force, {RAYS} wall and floor pixels: normals within {ANGLE:.0f} degrees "
        f"{right / RAYS:.2%}, depth within 1 % {close / RAYS:.2%}"
    )


def against_fits(s: Shipped, metres_NHW: F64) -> None:
    """Fit planes: inverse depth is linear on a plane, 1/z = (n·r)/d, with three numbers."""
    rays = directions()
    angles = {0: [], 1: [], 2: []}  # type: dict[int, list[float]]
    for i in range(len(s.surface_NHW)):
        for k in np.unique(s.surface_NHW[i]):
            mine = (s.surface_NHW[i] == k) & s.inside_NHW[i] & (metres_NHW[i] > 0.5)
            if mine.sum() < LARGE or (segment := int(s.segment_NHW[i][mine][0])) > 2:
                continue
            weight = metres_NHW[i][mine] ** 2  # a level's error in 1/z is as 1/z²
            system, value = rays[mine] * weight[:, None], weight / metres_NHW[i][mine]
            fitted = -np.linalg.lstsq(system, value, rcond=None)[0]
            stored = s.normals_NHW3[i][mine][0].astype(np.float64)
            angles[segment].append(float(angle_between(stored, fitted)))
    for k, found in angles.items():
        a = np.array(found)
        print(
            f"planes fitted to the engine's depth, {CLASSES[k]}: {len(a)} surfaces of at least "
            f"{LARGE} pixels: median {np.median(a):.1f} degrees off, {(a <= ANGLE).mean():.1%} "
            f"within {ANGLE:.0f}, {(a <= 15).mean():.1%} within 15"
        )


def against_itself(s: Shipped) -> None:
    points = s.depth_NHW[..., None].astype(np.float64) * directions()
    east = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    north = points[:, :-2, 1:-1] - points[:, 2:, 1:-1]
    mine = (s.inside_NHW & (s.segment_NHW <= 2))[:, 1:-1, 1:-1]
    made = np.cross(east[mine], north[mine])
    angles = angle_between(made, s.normals_NHW3[:, 1:-1, 1:-1][mine].astype(np.float64))
    print(
        f"cross products of neighbours: {(angles <= ANGLE).mean():.2%} within "
        f"{ANGLE:.0f} degrees, of {mine.sum()} pixels"
    )


def main() -> None:
    split = sys.argv[1] if len(sys.argv) > 1 else "test"
    s = load(split)
    print(f"rooms {split}: {len(s.surface_NHW)} frames, {s.inside_NHW.mean():.0%} away from edges")
    shares(s)
    against_labels(s)
    against_fits(s, against_depth(s))
    against_brute(s)
    against_itself(s)


if __name__ == "__main__":
    main()
