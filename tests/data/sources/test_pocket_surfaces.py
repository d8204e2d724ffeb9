"""Class, depth and normals from planes, against a room with known values and a slow reference."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from onetrunk.data.sources.pocket import decode

CAMERA = {"fx": 50.0, "fy": 60.0, "cx": 4.0, "cy": 3.0}


def decode_slowly(
    surface: NDArray[np.uint8], table: NDArray[np.float32], camera: Mapping[str, float]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Decode pixel by pixel: find where the ray meets the plane by bisection, without a formula."""
    height, width = surface.shape
    segment = np.zeros((height, width), np.uint8)
    depth = np.zeros((height, width), np.float32)
    normals = np.zeros((height, width, 3), np.float32)
    for v in range(height):
        for u in range(width):
            kind, *normal, d = (float(x) for x in table[surface[v, u]])
            segment[v, u] = int(kind)
            if kind == 255:
                continue
            normals[v, u] = normal
            if normal == [0.0, 0.0, 0.0]:
                depth[v, u] = d
                continue
            ray = np.array(
                [(u - camera["cx"]) / camera["fx"], -(v - camera["cy"]) / camera["fy"], -1.0]
            )
            low, high = 0.0, 1000.0  # in front of the plane, behind it
            for _ in range(80):
                middle = (low + high) / 2
                if np.dot(normal, middle * ray) > d:
                    low = middle
                else:
                    high = middle
            depth[v, u] = low
    return segment, depth, normals


def test_a_wall_straight_ahead_is_equally_deep_everywhere() -> None:
    table = np.array([[0, 0, 0, 1, -5]], np.float32)  # faces the viewer, 5 m ahead
    segment, depth, normals = decode(np.zeros((6, 8), np.uint8), table, CAMERA)
    assert (segment == 0).all()
    np.testing.assert_array_equal(depth, 5)
    np.testing.assert_array_equal(normals, np.broadcast_to([0, 0, 1], (6, 8, 3)))


def test_a_floor_is_deeper_closer_to_the_horizon() -> None:
    table = np.array([[1, 0, 1, 0, -1.2]], np.float32)  # 1.2 m below the eye
    surface = np.zeros((3, 8), np.uint8)
    camera = {**CAMERA, "cy": -1.0}  # the horizon is above the picture
    depth = decode(surface, table, camera)[1]
    np.testing.assert_allclose(depth[:, 0], [1.2 * 60 / 1, 1.2 * 60 / 2, 1.2 * 60 / 3], rtol=1e-6)


def test_actors_have_depth_without_normals_and_unlabelled_pixels_have_neither() -> None:
    table = np.array([[3, 0, 0, 0, 2.5], [255, 0, 0, 0, 0]], np.float32)
    segment, depth, normals = decode(np.array([[0, 1]], np.uint8), table, CAMERA)
    assert segment.tolist() == [[3, 255]]
    assert depth.tolist() == [[2.5, 0.0]]
    assert not normals.any()
    assert segment.dtype == np.uint8
    assert depth.dtype == normals.dtype == np.float32


def test_agrees_with_the_slow_reference() -> None:
    rng = np.random.default_rng(0)
    oblique = np.array([0.6, 0.0, 0.8])
    table = np.array(
        [
            [0, *oblique, -4],
            [1, 0, 1, 0, -4],
            [2, 0, -1, 0, -5],
            [4, 0, 0, 0, 7],
            [255, 0, 0, 0, 0],
        ],
        np.float32,
    )
    surface = rng.choice([0, 3, 4], (6, 8)).astype(np.uint8)
    surface[4:, 1:5] = 1  # below the horizon
    surface[:2, 1:5] = 2  # above it
    fast, reference = decode(surface, table, CAMERA), decode_slowly(surface, table, CAMERA)
    np.testing.assert_array_equal(fast[0], reference[0])
    np.testing.assert_allclose(fast[1], reference[1], rtol=1e-5)
    np.testing.assert_array_equal(fast[2], reference[2])


def test_an_index_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        decode(np.full((2, 2), 7, np.uint8), np.zeros((3, 5), np.float32), CAMERA)
    assert "surface map" in str(error.value)
    assert re.findall(r"\d+", str(error.value)) == ["3", "7"]
