"""Stored images: the same pixels and targets from the cache and from files; no guessed targets."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike
from PIL import Image

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Fit, Pixels, Raw
from onetrunk.data.sources import Item
from onetrunk.data.stored_images import (
    BAD,
    BLANK,
    GOOD,
    LONG,
    MISNAMED,
    TINY,
    ReadImage,
    layers_of,
    read_image,
    summarize,
)
from onetrunk.data.task import Task
from onetrunk.errors import Failed
from tests.helpers.errors import raises
from tests.helpers.fakes import CLASSIFY, Fake, dense_source, dense_targets, encoded, picture, small

MANY = np.arange(40) * 6 % 251


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def odd_images() -> dict[str, bytes]:
    """Every kind of file that a folder of photographs may hold."""
    image = picture(1, 20, 30)
    rng = np.random.default_rng(2)
    palette = Image.fromarray(image).quantize(16)
    kinds = {f"turned {i}": encoded(image, exif=exif(i)) for i in range(1, 9)}
    kinds |= {f"turned jpeg {i}": encoded(image, "JPEG", exif=exif(i)) for i in (3, 6, 8)}
    kinds |= {
        "grey": encoded(image[:, :, 0]),
        "16 bit": encoded(rng.integers(0, 65536, (20, 30), dtype=np.uint16)),
        "palette": encoded(palette),
        "palette with transparency": encoded(palette, transparency=3),
        "rgba": encoded(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)),
        "grey with alpha": encoded(
            Image.fromarray(rng.integers(0, 256, (20, 30, 2), dtype=np.uint8), "LA")
        ),
        "cmyk": encoded(
            Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8), "CMYK"), "JPEG"
        ),
        "one bit": encoded(Image.fromarray(image[:, :, 0] > 99)),
        "5:1": encoded(picture(3, 12, 60)),
        "1:5": encoded(picture(4, 60, 12)),
        "one pixel": encoded(picture(5, 1, 1)),
    }
    return kinds


@pytest.mark.parametrize("fill", [7, None])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_pixels_are_equal_through_cache_files_and_prediction(
    fit: str, fill: int | None, tmp_path: Path
) -> None:
    kinds = odd_images()
    items, paths = [], {}
    for i, (name, content) in enumerate(kinds.items()):
        path = tmp_path / f"{i}.img"
        path.write_bytes(content)
        paths[str(i)] = path
        items.append(Item(f"{i:03}", str(i), name, split="train", labels={"classify": "a"}))
    items += [Item("v", "0", "v", "val"), Item("w", "0", "w", "test")]
    source = Fake(CLASSIFY, items, paths)
    options: dict[str, Any] = {"size": (16, 24), "fit": fit, "margin": 4, "fill": fill}
    cached = Domain("d", source, **options)
    direct = Domain("d", source, cache=False, **options)
    places = np.arange(len(kinds))
    assert len(cached.train) == len(kinds)
    stored = cached.train.stored(places)[0]
    np.testing.assert_array_equal(stored, direct.train.stored(places)[0])
    for i, raw in enumerate(kinds.values()):
        np.testing.assert_array_equal(stored[i], cached.pixels.read(raw))
    assert cached.pixels == direct.pixels
    batch = cached.train.batch(places)[0]
    assert batch.equal(direct.train.batch(places)[0])
    assert batch.equal(cached.pixels.prepare([paths[str(i)] for i in range(len(kinds))]))


TASKS = dense_source(1).tasks


def read(
    targets: Mapping[str, np.ndarray | Exception],
    image: Raw | None = None,
    pixels: Pixels | None = None,
) -> ReadImage:
    """Read an image, by default of noise, with these targets."""
    images = {"x": picture(1, 10, 14) if image is None else image}
    source = Fake(TASKS, (), images, {("x", name): t for name, t in targets.items()})
    return read_image(source, "x", pixels or Pixels((10, 14)), layers_of(TASKS))


def test_targets_are_stored_unchanged() -> None:
    given = dense_targets(1, 10, 14)
    result = read(given)
    assert result.status == GOOD
    np.testing.assert_array_equal(result.arrays["target.segment"], given["segment"])
    np.testing.assert_array_equal(result.arrays["target.depth"], given["depth"])
    np.testing.assert_allclose(result.arrays["target.normals"], given["normals"], atol=1e-3)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_targets_are_fitted_like_their_image(fit: Fit) -> None:
    given = dense_targets(2, 20, 50)
    pixels = Pixels((12, 12), fit, margin=2, fill=0)
    result = read(given, image=picture(2, 20, 50), pixels=pixels)
    for name, empty in (("segment", 255), ("depth", 0.0)):
        expected = pixels.place_target(given[name], empty)
        np.testing.assert_array_equal(result.arrays[f"target.{name}"], expected)
    if fit == "pad":
        outside = result.arrays["images"].sum(-1) == 0
        assert outside.any()
        assert (result.arrays["target.segment"][outside] == 255).all()
        assert (result.arrays["target.depth"][outside] == 0).all()
        assert (result.arrays["target.normals"][outside] == 0).all()


def test_a_target_belongs_to_the_upright_image() -> None:
    turned = encoded(picture(1, 10, 14), exif=exif(6))  # shown as 14 high, 10 wide
    assert read(dense_targets(1, 14, 10), image=turned, pixels=Pixels((14, 10))).reason == ""
    assert "(10, 14)" in read(dense_targets(1, 10, 14), image=turned).reason


def test_a_missing_target_is_not_labelled() -> None:
    result = read({})
    assert result.status == GOOD
    assert (result.arrays["target.segment"] == 255).all()
    assert (result.arrays["target.depth"] == 0).all()
    assert (result.arrays["target.normals"] == 0).all()
    assert result.arrays["target.normals"].shape == (10, 14, 3)


def segment(value: int, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Return a class map of zeros with another value at one pixel."""
    classes: np.ndarray = np.zeros((10, 14), dtype)
    classes[3, 4] = value
    return classes


def normals(x: float) -> np.ndarray:
    found = np.zeros((10, 14, 3), np.float32)
    found[3, 4] = (x, 0, 0)
    return found


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ({"segment": np.zeros((9, 14), np.uint8)}, "segment is (9, 14), the image 10×14"),
        ({"depth": np.zeros((14, 10), np.float32)}, "depth is (14, 10)"),
        ({"normals": np.zeros((10, 14), np.float32)}, "normals is (10, 14)"),
        ({"segment": segment(3)}, "holds 3, outside 3 classes"),
        ({"segment": segment(-1)}, "holds -1"),
        ({"segment": segment(256)}, "holds 256"),
        ({"segment": segment(254, np.uint8)}, "holds 254"),
        ({"segment": np.zeros((10, 14), np.float32)}, "expected integers"),
        ({"depth": segment(-1, np.float32)}, "negative"),
        ({"depth": np.full((10, 14), "far")}, "expected numbers"),
        ({"normals": normals(0.5)}, "not unit vectors"),
        ({"normals": normals(1.5)}, "not unit vectors"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_invalid_target_makes_its_image_bad(targets: dict[str, Any], reason: str) -> None:
    result = read(targets)
    assert result.status == BAD
    assert reason in result.reason
    assert result.arrays == {}


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 1e300], ids=str)
def test_depth_that_is_not_finite_is_unknown(unknown: float) -> None:
    depth = np.full((10, 14), 2.0)
    depth[0, 0] = unknown
    placed = read({"depth": depth}).arrays["target.depth"]
    assert placed[0, 0] == 0
    assert (placed.ravel()[1:] == 2).all()


def test_normals_are_scaled_to_length_one() -> None:
    placed = read({"normals": normals(1.05)}).arrays["target.normals"]
    assert placed[3, 4].tolist() == [1, 0, 0]
    assert placed[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("where", "image", "flags"),
    [
        ("a.png", encoded(picture(1)), 0),
        ("a.png", encoded(np.full((9, 9, 3), 7, np.uint8)), BLANK),
        ("a.jpg", encoded(picture(1)), MISNAMED),
        ("a.JPEG", encoded(picture(1, 16, 16), "JPEG"), 0),
        ("a.tif", encoded(picture(1), "TIFF"), 0),
        ("row 17", encoded(picture(1)), 0),
        ("a.png", encoded(picture(1, 10, 51)), LONG),
        ("a.png", encoded(picture(1, 50, 10)), 0),
        ("a.png", encoded(picture(1, 7, 9)), TINY),
        ("a.jpg", encoded(np.full((1, 9, 3), 7, np.uint8)), BLANK | MISNAMED | LONG | TINY),
    ],
)
def test_suspicious_images_are_flagged(where: str, image: bytes, flags: int) -> None:
    result = read_image(Fake(CLASSIFY, (), {where: image}), where, Pixels((12, 12)), ())
    assert result.status == GOOD
    assert summarize([result]).records["flags"].tolist() == [flags]


def test_digests_depend_on_the_content_alone() -> None:
    def digest(image: Raw) -> tuple[int, int]:
        return read_image(Fake(CLASSIFY, (), {"x": image}), "x", Pixels((4, 4)), ()).digest

    assert digest(encoded(picture(1))) == digest(encoded(picture(1)))
    assert digest(picture(1)) == digest(picture(1).copy())
    black = [np.zeros(shape, np.uint8) for shape in ((4, 6), (6, 4), (2, 4, 3))]
    shapes: list[Raw] = [*black, *(Image.fromarray(a) for a in black)]
    assert len({digest(image) for image in shapes}) == len(shapes)


def test_a_file_of_absurd_size_is_refused_without_reading_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(1)))
    monkeypatch.setattr("onetrunk.data.stored_images.MAX_BYTES", 100)
    result = read_image(Fake(CLASSIFY, (), {"x": path}), "x", Pixels((4, 4)), ())
    assert result.status == BAD
    assert "over the limit" in result.reason


def test_several_threads_read_the_same() -> None:
    for cache in (None, False):
        frames = Domain("d", small(30), size=8, cache=cache).decoded.frames
        expected = frames.read(MANY % 30)[0]
        with ThreadPoolExecutor(8) as pool:
            for images, _ in pool.map(frames.read, [MANY % 30] * 16):
                np.testing.assert_array_equal(images, expected)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
def test_a_fork_reads_files_after_its_parent() -> None:
    frames = Domain("d", small(), size=8, cache=False).decoded.frames
    frames.read(np.arange(8))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(frames.read(np.arange(8))[0].sum()))
    child.start()
    assert queue.get(timeout=20) == frames.read(np.arange(8))[0].sum()
    child.join()


def test_a_pickle_is_small_and_reads_the_same() -> None:
    domain = Domain("d", dense_source(40), size=8)
    frames = domain.decoded.frames
    rows = np.array([7, 3])
    images, targets = frames.read(rows)
    packed = pickle.dumps(frames)
    assert len(packed) < 5_000
    again = pickle.loads(packed).read(rows)
    np.testing.assert_array_equal(again[0], images)
    assert set(again[1]) == set(targets)
    direct = Domain("d", dense_source(40), size=8, cache=False).decoded.frames
    direct.read(rows)  # its threads do not travel
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(direct)).read(rows)[0], images)


def test_arrays_that_were_read_are_copies() -> None:
    frames = Domain("d", small(), size=8).decoded.frames
    images, _ = frames.read(np.array([1]))
    before = images.copy()
    images[:] = 0
    np.testing.assert_array_equal(frames.read(np.array([1]))[0], before)


def test_an_image_that_disappeared_is_named_with_a_remedy() -> None:
    source = small()
    frames = Domain("d", source, size=8, cache=False).decoded.frames
    source.images = {"5": FileNotFoundError(2, "No such file or directory")}
    with raises(Failed, "5", got="No such file or directory", try_="restore it"):
        frames.read(np.array([4, 5]))


def test_half_precision_keeps_a_normal_to_a_fiftieth_of_a_degree() -> None:
    assert layers_of((Task("n", "normals"),))[0].dtype == "<f2"
    given = dense_targets(3, 10, 14)["normals"]
    placed = read({"normals": given}).arrays["target.normals"].astype(np.float64)
    cosine = (placed * given).sum(-1) / np.linalg.norm(placed, axis=-1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.05
