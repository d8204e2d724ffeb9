"""Augmentation against slow references pixel by pixel, and the distribution of its draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onetrunk.data.augment import LUMA, Augment, Views, apply
from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from tests.helpers.errors import raises
from tests.helpers.fakes import dense_source, dense_targets, picture

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # grey levels
TASKS = dense_source(1).tasks
COUNT = 24


def images_of(pixels: Pixels, count: int = COUNT) -> np.ndarray:
    return np.stack([picture(i, *pixels.stored) for i in range(count)])


def targets_of(pixels: Pixels, count: int = COUNT) -> dict[str, np.ndarray]:
    each = [dense_targets(i, *pixels.stored) for i in range(count)]
    return {name: np.stack([t[name] for t in each]) for name in each[0]}


def draw(augment: Augment, pixels: Pixels, count: int = COUNT, seed: int = 3) -> Views:
    return augment.draw(seed, np.arange(count), np.zeros(count, np.int64), pixels)


def levels(augmented: torch.Tensor) -> np.ndarray:
    """Normalized by PLAIN, back to (B, H, W, 3) grey levels."""
    return augmented.permute(0, 2, 3, 1).numpy()


def reference(image: np.ndarray, views: Views, b: int, pixels: Pixels) -> np.ndarray:
    """One view, one output pixel after the other, bilinear between the four nearest pixels."""
    (rows, columns), (height, width) = pixels.size, image.shape[:2]
    out = np.zeros((rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            y = views.y[b] + (r + 0.5 - rows / 2) * views.step_y[b]
            seen_c = columns - 1 - c if views.mirror[b] else c
            x = views.x[b] + (seen_c + 0.5 - columns / 2) * views.step_x[b]
            if not (0 <= y < height and 0 <= x < width):
                out[r, c] = pixels.fill
                continue
            y0, x0 = np.floor(y - 0.5), np.floor(x - 0.5)
            wy, wx = y - 0.5 - y0, x - 0.5 - x0
            for dy, dx, w in (
                (0, 0, (1 - wy) * (1 - wx)),
                (0, 1, (1 - wy) * wx),
                (1, 0, wy * (1 - wx)),
                (1, 1, wy * wx),
            ):
                at_y = int(np.clip(y0 + dy, 0, height - 1))
                at_x = int(np.clip(x0 + dx, 0, width - 1))
                out[r, c] += w * image[at_y, at_x]
    return out


def reference_target(
    target: np.ndarray, kind: str, views: Views, b: int, pixels: Pixels
) -> np.ndarray:
    """One target, one output pixel after the other, from the stored pixel that it lies in."""
    (rows, columns), (height, width) = pixels.size, target.shape[:2]
    out = np.full((rows, columns, *target.shape[2:]), 255 if kind == "segment" else 0, target.dtype)
    for r in range(rows):
        for c in range(columns):
            y = views.y[b] + (r + 0.5 - rows / 2) * views.step_y[b]
            seen_c = columns - 1 - c if views.mirror[b] else c
            x = views.x[b] + (seen_c + 0.5 - columns / 2) * views.step_x[b]
            if 0 <= y < height and 0 <= x < width:
                value = np.array(target[int(np.floor(y)), int(np.floor(x))])
                if kind == "depth":
                    value = value * np.sqrt(views.step_y[b] * views.step_x[b])
                if kind == "normals" and views.mirror[b]:
                    value = value * np.array([-1, 1, 1], np.float32)
                out[r, c] = value
    return out


# by name: settings of Augment, and of Pixels
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "pad-crop": ({"pad": 3}, {}),
    "flip": ({"flip": True}, {}),
    "margin": ({}, {"margin": 5}),
    "pad, margin and flip": ({"pad": 2, "flip": True}, {"margin": 3}),
    "area": ({"area": (0.2, 1.0)}, {}),
    "area and aspect": ({"area": (0.3, 0.9), "aspect": (0.5, 2.0)}, {"margin": 4}),
    "aspect": ({"aspect": (0.5, 2.0)}, {}),
    "zoom in and out": ({"scale": (0.5, 2.0)}, {}),
    "all that moves": (
        {"pad": 2, "flip": True, "area": (0.3, 1.0), "aspect": (0.7, 1.4), "scale": (0.8, 1.3)},
        {"margin": 2, "fill": 99},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_images_and_targets_agree_with_the_slow_reference(name: str) -> None:
    settings, pixel_settings = OPTIONS[name]
    augment = Augment(**settings)
    pixels = Pixels((9, 7), **{"fill": 40, **pixel_settings}, **PLAIN)
    images, targets = images_of(pixels), targets_of(pixels)
    kept = images.copy(), {k: v.copy() for k, v in targets.items()}
    views = draw(augment, pixels)
    augmented, moved = apply(images, targets, views, pixels, TASKS)
    for b in range(COUNT):
        # coordinates in single precision, of noise: 255 levels a pixel
        np.testing.assert_allclose(
            levels(augmented)[b], reference(images[b], views, b, pixels), atol=0.02
        )
        for kind, target in targets.items():
            found = moved[kind][b].numpy()
            found = found.transpose(1, 2, 0) if kind == "normals" else found
            expected = reference_target(target[b], kind, views, b, pixels)
            np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(images, kept[0])  # what is the cache's stays
    for kind, target in targets.items():
        np.testing.assert_array_equal(target, kept[1][kind])


def test_the_default_is_the_unchanged_middle() -> None:
    pixels = Pixels((8, 6), **PLAIN)
    augmented, _ = apply(images_of(pixels), {}, draw(Augment(), pixels), pixels)
    np.testing.assert_allclose(levels(augmented), images_of(pixels), atol=1e-4)


@pytest.mark.parametrize("margin", [0, 1, 4])
def test_copied_windows_equal_sampled_ones(margin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = Pixels((9, 7), margin=margin, fill=17, **PLAIN)
    augment = Augment(pad=2, flip=True)
    views = draw(augment, pixels, 64)
    images = images_of(pixels, 64)
    copied = apply(images, {}, views, pixels)[0]
    from onetrunk.data import augment as module

    monkeypatch.setattr(module, "_window", lambda *a: module._sample(*a).numpy())
    sampled = apply(images, {}, views, pixels)[0]
    np.testing.assert_allclose(copied, sampled, atol=0.02)


@pytest.mark.parametrize("options", [{"pad": 4}, {"pad": 4, "scale": (0.4, 0.9)}], ids=str)
def test_around_a_padded_image_is_the_color_of_its_border(options: dict[str, Any]) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (COUNT, 3), dtype=np.uint8)
    blank = np.broadcast_to(colours[:, None, None], (COUNT, 5, 16, 3))
    for fill, seen in ((None, True), (0, False)):
        pixels = Pixels((16, 16), "pad", fill=fill, **PLAIN)
        stored = np.stack([pixels.read(image) for image in blank])
        augmented, _ = apply(stored, {}, draw(Augment(**options), pixels), pixels)
        found = levels(augmented)
        assert (np.abs(found - colours[:, None, None]).max() < 0.02) == seen
        assert (found.min() < 0.02) == (not seen or colours.min() == 0)


def test_a_zoomed_window_at_the_edge_is_not_darkened() -> None:
    pixels = Pixels((16, 16), fill=0, **PLAIN)
    images = np.full((COUNT, 16, 16, 3), 200, np.uint8)
    augmented, _ = apply(images, {}, draw(Augment(area=(0.1, 0.5)), pixels), pixels)
    np.testing.assert_allclose(levels(augmented), 200, atol=0.01)


def test_colour_is_brightness_then_contrast_then_saturation() -> None:
    pixels = Pixels((5, 4), **PLAIN)
    augment = Augment(brightness=0.4, contrast=0.5, saturation=0.6)
    images = images_of(pixels)
    views = draw(augment, pixels)
    assert views.colour is not None
    augmented = levels(apply(images, {}, views, pixels)[0])
    from onetrunk.data.seeded import Chance

    chance = Chance(3, np.arange(COUNT), np.zeros(COUNT))
    factor = {lane: chance(lane, 1 - a, 1 + a) for lane, a in ((6, 0.4), (7, 0.5), (8, 0.6))}
    for b in range(COUNT):
        for r in range(5):
            for c in range(4):
                rgb = images[b, r, c].astype(float) * factor[6][b]
                rgb = (rgb - 127.5) * factor[7][b] + 127.5
                grey = (LUMA * rgb).sum()
                rgb = grey + (rgb - grey) * factor[8][b]
                np.testing.assert_allclose(augmented[b, r, c], rgb.clip(0, 255), atol=0.01)


def test_colour_and_geometry_combine() -> None:
    pixels = Pixels((9, 7), **PLAIN)
    both = draw(Augment(pad=2, flip=True, brightness=0.3), pixels)
    moved = draw(Augment(pad=2, flip=True), pixels)
    for name in ("y", "x", "step_y", "step_x", "mirror"):
        np.testing.assert_array_equal(getattr(both, name), getattr(moved, name))


def test_a_flip_mirrors_the_image_and_negates_x_of_its_normals() -> None:
    pixels = Pixels((6, 8), **PLAIN)
    images, targets = images_of(pixels), targets_of(pixels)
    views = draw(Augment(flip=True), pixels)
    augmented, moved = apply(images, targets, views, pixels, TASKS)
    assert views.mirror.any()
    assert not views.mirror.all()
    for b in np.flatnonzero(views.mirror):
        np.testing.assert_allclose(levels(augmented)[b], images[b, :, ::-1], atol=1e-3)
        np.testing.assert_array_equal(moved["segment"][b], targets["segment"][b, :, ::-1])
        np.testing.assert_array_equal(moved["depth"][b], targets["depth"][b, :, ::-1])
        flipped = targets["normals"][b, :, ::-1] * np.array([-1, 1, 1], np.float32)
        np.testing.assert_array_equal(moved["normals"][b].permute(1, 2, 0), flipped)


def test_zoom_divides_depth_by_its_factor() -> None:
    pixels = Pixels((8, 8), **PLAIN)
    depth = np.full((COUNT, 8, 8), 6.0, np.float32)
    views = draw(Augment(scale=(2.0, 2.0)), pixels)
    _, moved = apply(images_of(pixels), {"depth": depth}, views, pixels, TASKS)
    np.testing.assert_allclose(moved["depth"], 3.0)
    inverse = (Task("depth", "depth", unit="disparity"),)
    _, moved = apply(images_of(pixels), {"depth": depth}, views, pixels, inverse)
    np.testing.assert_allclose(moved["depth"], 12.0)


def test_labels_that_are_not_maps_are_unchanged() -> None:
    pixels = Pixels((8, 8), **PLAIN)
    labels = {
        "classify": np.arange(COUNT, dtype=np.int32),
        "price": np.ones((COUNT, 2), np.float32),
    }
    _, moved = apply(images_of(pixels), labels, draw(Augment(pad=2, flip=True), pixels), pixels)
    assert moved["classify"].tolist() == list(range(COUNT))
    assert (moved["price"] == 1).all()


# draws

FULL = Augment(
    pad=2, flip=True, area=(0.3, 1.0), aspect=(0.7, 1.4), scale=(0.8, 1.3), brightness=0.2
)


def rows_of(views: Views, rows: np.ndarray) -> list[np.ndarray]:
    assert views.colour is not None
    return [
        getattr(views, name)[rows] for name in ("y", "x", "step_y", "step_x", "mirror", "colour")
    ]


def test_a_draw_depends_on_image_and_view_alone_not_on_its_batch() -> None:
    pixels = Pixels((16, 12), margin=3)
    images, numbers = np.arange(50), np.arange(50) % 3
    together = FULL.draw(9, images, numbers, pixels)
    order = np.random.default_rng(0).permutation(50)
    for part in (order, order[:7], order[7:8]):
        alone = FULL.draw(9, images[part], numbers[part], pixels)
        for a, b in zip(rows_of(alone, np.arange(len(part))), rows_of(together, part), strict=True):
            np.testing.assert_array_equal(a, b)


def test_pixels_of_a_view_do_not_depend_on_their_batch() -> None:
    pixels = Pixels((9, 7), margin=2, **PLAIN)
    for augment in (FULL, Augment(pad=3, flip=True)):
        images, targets = images_of(pixels), targets_of(pixels)
        views = draw(augment, pixels)
        together, moved = apply(images, targets, views, pixels, TASKS)
        for b in (0, 5, 23):
            one = augment.draw(3, np.array([b]), np.array([0]), pixels)
            augmented, alone = apply(
                images[[b]], {k: v[[b]] for k, v in targets.items()}, one, pixels, TASKS
            )
            assert augmented[0].equal(together[b])
            for name, target in alone.items():
                assert target[0].equal(moved[name][b])


def test_draws_differ_by_seed_image_and_view() -> None:
    pixels = Pixels((16, 16))
    one = np.array([5])
    first = FULL.draw(1, one, one, pixels)
    for other in (
        FULL.draw(2, one, one, pixels),
        FULL.draw(1, one + 1, one, pixels),
        FULL.draw(1, one, one + 1, pixels),
    ):
        assert first.y[0] != other.y[0]
        assert first.step_x[0] != other.step_x[0]


def test_all_offsets_of_pad_and_crop_are_equally_likely() -> None:
    pixels = Pixels((8, 8), margin=2)
    n = 25_000
    views = Augment(pad=1, flip=True).draw(7, np.arange(n), np.zeros(n, np.int64), pixels)
    for middle in (views.y, views.x):
        offsets, counts = np.unique(middle - 4, return_counts=True)
        assert offsets.tolist() == [-1, 0, 1, 2, 3]
        # five standard deviations of a binomial of 25,000 and a fifth
        np.testing.assert_allclose(counts, n / 5, atol=5 * np.sqrt(n * 0.2 * 0.8))
    assert abs(views.mirror.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    both = np.corrcoef([views.y, views.x, views.mirror])
    assert np.abs(both - np.eye(3)).max() < 5 / np.sqrt(n)


def test_area_aspect_and_scale_are_drawn_from_their_ranges() -> None:
    pixels = Pixels((100, 100))
    n = 20_000
    views = Augment(area=(0.2, 0.5), aspect=(0.8, 1.25)).draw(
        1, np.arange(n), np.zeros(n, np.int64), pixels
    )
    area, aspect = views.step_y * views.step_x, views.step_y / views.step_x
    assert area.min() >= 0.2 - 1e-9
    assert area.max() <= 0.5 + 1e-9
    assert abs(area.mean() - 0.35) < 0.005  # uniform in area
    assert aspect.min() >= 0.8 - 1e-9
    assert aspect.max() <= 1.25 + 1e-9
    assert abs(np.log(aspect).mean()) < 0.005  # as often high as wide
    top = views.y - 50 * views.step_y
    assert top.min() >= -1e-9  # without a pad the window stays inside
    assert (views.y + 50 * views.step_y).max() <= 100 + 1e-9
    zoom = 1 / Augment(scale=(0.5, 2.0)).draw(1, np.arange(n), np.zeros(n, np.int64), pixels).step_y
    assert zoom.min() >= 0.5 - 1e-9
    assert zoom.max() <= 2 + 1e-9
    assert abs(np.log(zoom).mean()) < 0.015


def test_the_default_pads_and_crops_and_settings_change_it() -> None:
    assert Augment.usual(Pixels((32, 48)), True, {}) == Augment(pad=4, flip=True)
    assert Augment.usual(Pixels((32, 32), margin=4), False, {}) == Augment()
    given = {"area": (0.5, 1.0), "pad": 0}
    assert Augment.usual(Pixels((32, 32)), False, given) == Augment(area=(0.5, 1.0))
    with raises(BadInput, "padd", "pad", "flip"):
        Domain("d", tasks=["classify"], augment={"padd": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {"pad": -1},
        {"area": (0.0, 1.0)},
        {"area": (0.5, 1.1)},
        {"area": (0.9, 0.5)},
        {"scale": (0.0, 1.0)},
        {"aspect": (2.0, 1.0)},
        {"brightness": 1.0},
        {"contrast": -0.1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(wrong: dict[str, Any]) -> None:
    with raises(BadInput, "augment", *wrong, got=next(iter(wrong.values()))):
        Augment(**wrong)
