"""The embedded Freedoom domains: their sheets agree with their cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import as_file
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from onetrunk.data.duplicates import near_pairs, thumbnails
from onetrunk.data.sources.pocket import ASSETS, decode

SPLITS = ("train", "val", "test")


class Decoded(NamedTuple):
    """The maps of one image."""

    surface: NDArray[np.uint8]
    segment: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]


@cache
def card(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ASSETS / f"{name}.json").read_text("utf-8"))
    return document


def tiles(name: str, split: str, kind: str = "") -> Iterator[NDArray[np.uint8]]:
    """Yield the images of a split, or its maps of a kind."""
    document = card(name)
    height, width = document["size"]
    columns, count = (document["splits"][split][k] for k in ("columns", "count"))
    file = ASSETS / f"{name}.{split}{kind}.{document['format']}"
    with as_file(file) as path, Image.open(path) as image:
        sheet = np.asarray(image)
    for i in range(count):
        y, x = i // columns * height, i % columns * width
        yield sheet[y : y + height, x : x + width]


def groups(name: str, split: str) -> set[str]:
    part = card(name)["splits"][split]
    return {part["group_names"][i] for i in part["groups"]}


@pytest.mark.parametrize("name", ["creatures", "encounter", "rooms"])
def test_a_level_is_in_one_split_and_the_same_one_in_all_domains(name: str) -> None:
    for split in SPLITS:
        for other in ("creatures", "encounter", "rooms"):
            for unlike in set(SPLITS) - {split}:
                assert not groups(name, split) & groups(other, unlike)


@pytest.mark.parametrize("name", ["creatures", "encounter", "rooms"])
def test_few_test_images_are_near_a_training_image(name: str) -> None:
    train, test = (
        np.concatenate([thumbnails(tile[None]) for tile in tiles(name, split)])
        for split in ("train", "test")
    )
    near = np.unique(near_pairs(test, train)[:, 0])
    assert len(near) <= 0.01 * len(test)


@pytest.mark.parametrize("name", ["creatures", "encounter"])
def test_every_class_is_in_every_split(name: str) -> None:
    for split in SPLITS:
        part = card(name)["splits"][split]
        counts = np.bincount(part["labels"], minlength=len(card(name)["classes"]))
        assert len(part["labels"]) == part["count"]
        assert counts.min() >= 15


def test_encounters_are_rare() -> None:
    for split in SPLITS:
        share = np.mean(card("encounter")["splits"][split]["labels"])
        assert 1 / 11 < share < 1 / 7


def decoded(split: str, step: int = 1) -> Iterator[Decoded]:
    """Yield every `step`-th image of a split of rooms."""
    with as_file(ASSETS / "rooms.safetensors") as path:
        tables = load_file(path)
    rows, start = tables[f"{split}.surfaces"], tables[f"{split}.start"]
    assert len(start) == card("rooms")["splits"][split]["count"] + 1
    assert start[0] == 0 and start[-1] == len(rows) and (np.diff(start) > 0).all()
    for i, tile in enumerate(tiles("rooms", split, ".surface")):
        if i % step == 0:
            surface = tile[..., 0]
            table = rows[start[i] : start[i + 1]]
            yield Decoded(surface, *decode(surface, table, card("rooms")["camera"]))


@pytest.mark.parametrize("split", SPLITS)
def test_planes_face_the_camera_and_actors_have_no_normal(split: str) -> None:
    camera = card("rooms")["camera"]
    height, width = card("rooms")["size"]
    v, u = np.mgrid[:height, :width]
    across, up = (u - camera["cx"]) / camera["fx"], -(v - camera["cy"]) / camera["fy"]
    ray = np.stack([across, up, np.full(u.shape, -1.0)], -1)
    covered = np.zeros(6)
    for _, segment, depth, normals in decoded(split):
        plane, actor = segment <= 2, (segment == 3) | (segment == 4)
        assert (plane | actor | (segment == 255)).all()
        np.testing.assert_allclose(np.linalg.norm(normals[plane], axis=-1), 1, atol=1e-4)
        assert ((normals * ray).sum(-1)[plane] < 0).all()
        assert (depth[plane | actor] > 0).all() and (depth < 700).all()
        assert not normals[~plane].any() and not depth[segment == 255].any()
        assert (normals[segment == 1] == (0, 1, 0)).all()
        assert (normals[segment == 2] == (0, -1, 0)).all()
        covered += [*((segment == k).mean() for k in range(5)), (segment == 255).mean()]
    shares = covered / card("rooms")["splits"][split]["count"]
    assert shares[0] < 0.7 and shares[1] > 0.15 and shares[2] > 0.05  # wall, floor, ceiling
    assert shares[3] > 0.03 and shares[4] > 0.007 and shares[5] < 0.04  # creature, item, none


def test_cross_products_of_neighbouring_points_are_the_stored_normals() -> None:
    camera = card("rooms")["camera"]
    right = total = 0
    for surface, segment, depth, normals in decoded("test", step=5):
        v, u = np.mgrid[: surface.shape[0], : surface.shape[1]]
        across, up = (u - camera["cx"]) / camera["fx"], -(v - camera["cy"]) / camera["fy"]
        points = depth[..., None] * np.stack([across, up, np.full(u.shape, -1.0)], -1)
        corner, east, north = points[1:, :-1], points[1:, 1:], points[:-1, :-1]
        same = (surface[1:, :-1] == surface[1:, 1:]) & (surface[1:, :-1] == surface[:-1, :-1])
        same &= segment[1:, :-1] <= 2
        made = np.cross(east - corner, north - corner)[same]
        made /= np.linalg.norm(made, axis=-1, keepdims=True)
        right += ((made * normals[1:, :-1][same]).sum(-1) > np.cos(np.radians(5))).sum()
        total += same.sum()
    assert right / total > 0.99
