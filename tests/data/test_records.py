"""The records of a chunk of images, against a slow reference for one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onetrunk.data import stored_images
from onetrunk.data.duplicates import thumbnails
from onetrunk.data.stored_images import BAD, BLANK, GOOD, ReadImage, stats, summarize


def slow_thumbnail(image_HW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cut each pixel into 16×16 pieces, so that every cell of the thumbnail holds whole pieces."""
    height, width = image_HW3.shape[:2]
    pieces = image_HW3.astype(np.float64).repeat(16, 0).repeat(16, 1)
    grey = pieces @ np.array([0.299, 0.587, 0.114])
    cells: NDArray[np.float64] = grey.reshape(16, height, 16, width).mean((1, 3))
    return cells


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (28, 28), (8, 8), (17, 5), (1, 40)])
def test_thumbnails_are_means_over_equal_areas(size: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *size, 3), np.uint8)
    expected = np.stack([slow_thumbnail(image) for image in images])
    assert np.abs(thumbnails(images) - expected).max() <= 0.501


def test_statistics_are_those_of_each_channel() -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 300, 7, 3), np.uint8)
    images[1] = 255  # the largest sums
    mean, square = stats(images)
    values = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(square, (values**2).mean((1, 2)), rtol=1e-12)


def test_a_chunk_has_the_records_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    chunk = [
        ReadImage(
            GOOD, {"images": rng.integers(0, 256, (9, 9, 3), np.uint8)}, (i + 1, 9), (i, 2**63)
        )
        for i in range(5)
    ]
    chunk[2] = ReadImage(BAD, reason="not an image")
    chunk[4].arrays["images"][:] = 77
    part = summarize(chunk)
    assert part.records["status"].tolist() == [GOOD, GOOD, BAD, GOOD, GOOD]
    assert part.records["height"].tolist() == [1, 2, 0, 4, 5]
    assert part.records["digest"][3].tolist() == [3, 2**63]
    assert part.records["flags"][[0, 1, 3, 4]].tolist() == [0, 0, 0, BLANK]
    assert part.reasons == {2: "not an image"}
    assert not part.arrays["images"][2].any()
    monkeypatch.setattr(stored_images, "BLOCK", 1)  # one by one: the same
    alone = summarize(chunk)
    assert alone.records.tobytes() == part.records.tobytes()


def test_a_chunk_without_a_readable_image_has_no_arrays() -> None:
    part = summarize([ReadImage(BAD, reason="torn"), ReadImage(BAD, reason="torn")])
    assert part.arrays == {}
    assert part.records["status"].tolist() == [BAD, BAD]
