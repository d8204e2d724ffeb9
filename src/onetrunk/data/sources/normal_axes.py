"""Which way the axes of stored normals point, measured against depth.

Archives of normals rarely say it. The depth of the same image does: through a pinhole camera its
pixels are points in space (x right, y up, z to the viewer), neighbours span a surface, and that
surface's normal faces the viewer. The cosine between measured and stored values, one axis at a
time, is near 1 where the axes agree and near -1 where one is turned round.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FOCAL = 0.9  # of the image's width; a camera's true one is not needed to tell signs apart
STEPS = 96  # of a width, between the points of a surface: over some pixels noise weighs less
EDGE = 0.05  # neighbours whose depths differ by more, relative, lie on two surfaces

F64 = NDArray[np.float64]


def agreement(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> F64:
    """Cosines of x, y and z over all pixels of (depth HW, stored normals HW3); 0 where none."""
    both, mine, theirs = np.zeros(3), np.zeros(3), np.zeros(3)
    for depth_HW, stored_HW3 in pairs:
        measured, known = surface_normals(depth_HW)
        stored = stored_HW3[: len(measured), : measured.shape[1]].astype(np.float64)
        known &= (stored * stored).sum(-1) > 0.25
        a, b = measured[known], stored[known]
        both, mine, theirs = both + (a * b).sum(0), mine + (a * a).sum(0), theirs + (b * b).sum(0)
    found: F64 = both / np.maximum(np.sqrt(mine * theirs), 1e-12)
    return found


def surface_normals(depth_HW: NDArray[np.float32]) -> tuple[F64, NDArray[np.bool_]]:
    """Normals (H-s, W-s, 3) of the surfaces through a depth map's points; which are known."""
    z = depth_HW.astype(np.float64)
    height, width = z.shape
    s = max(1, round(width / STEPS))
    across = (np.arange(width) + 0.5 - width / 2) / (FOCAL * width)
    up = -(np.arange(height) + 0.5 - height / 2) / (FOCAL * width)
    points = np.stack([z * across, z * up[:, None], -z], -1)
    here = points[:-s, :-s]
    right, below = points[:-s, s:] - here, points[s:, :-s] - here
    normal = np.cross(right, below)
    normal *= np.where((normal * here).sum(-1) > 0, -1, 1)[..., None]  # towards the viewer
    length = np.linalg.norm(normal, axis=-1)
    near = z[:-s, :-s]
    known = (near > 0) & (length > 0)
    for other in (z[:-s, s:], z[s:, :-s]):
        known &= (other > 0) & (np.abs(other - near) < EDGE * near)
    return normal / np.where(length > 0, length, 1)[..., None], known
