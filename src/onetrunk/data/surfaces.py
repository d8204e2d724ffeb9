"""Class, depth and normals of a picture from the plane that each of its pixels lies on.

A pinhole camera looks along −z (x right, y up, z towards the viewer). Pixel (v, u) is seen along
r = ((u − cx)/fx, −(v − cy)/fy, −1), and its point is z·r, z being its depth along the optical axis.
A surface is a plane n·p = d with its unit normal n towards the camera, so z = d/(n·r), where d and
n·r are both negative. An actor (a flat picture that faces the camera) has no normal: n = 0, and d
is its depth. Lengths are metres.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
NOT_LABELLED = 255


def decode(surface_HW: U8, table_K5: F32, camera: Mapping[str, float]) -> tuple[U8, F32, F32]:
    """(class HW, 255 = not labelled; depth HW, 0 = missing; normals HW3, 0 = missing).

    A row of the table is class, nx, ny, nz, d; `surface_HW` says which row a pixel lies on;
    `camera` has fx, fy, cx, cy in pixels.
    """
    height, width = surface_HW.shape
    if surface_HW.size and int(surface_HW.max()) >= len(table_K5):
        raise ValueError(
            f"surface map: expected indices below {len(table_K5)} (rows of the table), "
            f"got {int(surface_HW.max())}"
        )
    rows_HW5 = table_K5.astype(np.float64)[surface_HW]
    segment = rows_HW5[..., 0].astype(np.uint8)
    normal, d = rows_HW5[..., 1:4], rows_HW5[..., 4]
    across = (np.arange(width) - camera["cx"]) / camera["fx"]
    up = -(np.arange(height) - camera["cy"]) / camera["fy"]
    facing = normal[..., 0] * across + normal[..., 1] * up[:, None] - normal[..., 2]
    plane = normal.any(-1)
    depth = np.where(plane, d / np.where(plane, facing, 1.0), d)
    depth[segment == NOT_LABELLED] = 0.0
    return segment, depth.astype(np.float32), normal.astype(np.float32)
