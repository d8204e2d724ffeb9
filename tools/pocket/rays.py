"""Cast the rays of a level camera at the walls, floors and ceilings of a level.

A column of the picture is one vertical plane (the camera never tilts), so its rays cross the same
lines of the level's plan in the same order. We walk along them: a ray ends at the near sector's
floor or ceiling, or at the line if the line has no opening at that height, and goes on otherwise.

Camera frame: x right, y up, z towards the viewer. Lengths in map units here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from doom import Level
from numpy.typing import NDArray

WALL, FLOOR, CEILING, CREATURE, ITEM, NOTHING = 0, 1, 2, 3, 4, 255
F64 = NDArray[np.float64]


@dataclass
class Hits:
    """The surface that the ray of each pixel meets first."""

    segment_HW: NDArray[np.uint8]
    depth_HW: F64  # along the optical axis; 0 where segment is NOTHING
    # which surface: a line's number (walls), a sector's (floors, ceilings); -1 for none
    owner_HW: NDArray[np.int64]


def cast(
    level: Level,
    floor_S: F64,
    ceiling_S: F64,
    camera: tuple[float, float, float, float],
    across_W: F64,
    down_H: F64,
) -> Hits:
    """Rays (across, -down, -1) from a camera x, y, z, angle in degrees; heights as of now."""
    x, y, z, angle = camera
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    right = np.array([ahead[1], -ahead[0]])
    height, width = len(down_H), len(across_W)
    segment = np.full((height, width), NOTHING, np.uint8)
    depth = np.zeros((height, width))
    owner = np.full((height, width), -1, np.int64)
    start = level.vertices_V2[level.ends_L2[:, 0]]
    run = level.vertices_V2[level.ends_L2[:, 1]] - start
    wx, wy = start[:, 0] - x, start[:, 1] - y
    for u in range(width):
        dx, dy = ahead + across_W[u] * right
        cross = dx * run[:, 1] - dy * run[:, 0]
        ok = np.abs(cross) > 1e-9
        safe = np.where(ok, cross, 1.0)
        t = (wx * run[:, 1] - wy * run[:, 0]) / safe
        s = (wx * dy - wy * dx) / safe
        crossed = np.flatnonzero(ok & (t > 1e-6) & (s >= 0) & (s <= 1))
        crossed = crossed[np.argsort(t[crossed], kind="stable")]
        alive = np.ones(height, bool)

        def end(who: NDArray[np.bool_], what: int, at: F64, whose: int, u: int = u) -> None:
            segment[who, u] = what
            depth[who, u] = 0.0 if what == NOTHING else at[who]
            owner[who, u] = whose

        for line in crossed.tolist():
            near, far = level.sides_L2[line]
            if cross[line] > 0:  # the line runs to the left across the ray: we come from its left
                near, far = far, near
            if near < 0:  # from the void: the camera's column is broken here
                break
            to_line = np.full(height, t[line])
            h = z - t[line] * down_H  # height of each pixel's ray at the line
            under = alive & (h < floor_S[near])
            over = alive & (h > ceiling_S[near])
            with np.errstate(divide="ignore", invalid="ignore"):
                to_floor = (z - floor_S[near]) / down_H
                to_ceiling = (z - ceiling_S[near]) / down_H
            end(under, NOTHING if level.sky_floor_S[near] else FLOOR, to_floor, int(near))
            end(over, NOTHING if level.sky_ceiling_S[near] else CEILING, to_ceiling, int(near))
            alive &= ~(under | over)
            if far < 0:
                end(alive, WALL, to_line, line)
                alive[:] = False
            else:
                step = alive & (h < floor_S[far])
                end(step, WALL, to_line, line)
                alive &= ~step
                top = alive & (h > ceiling_S[far])
                both_sky = level.sky_ceiling_S[near] and level.sky_ceiling_S[far]
                end(top, NOTHING if both_sky else WALL, to_line, line)
                alive &= ~top
                if level.middle_L[line]:  # a grate with holes: what is seen is not known
                    end(alive, NOTHING, to_line, -1)
                    alive[:] = False
            if not alive.any():
                break
    return Hits(segment, depth, owner)
