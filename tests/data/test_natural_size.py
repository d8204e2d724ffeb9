"""The size of a source's images is read from a few headers."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from onetrunk.data.natural_size import median_side, size_of
from onetrunk.data.pixels import Raw
from onetrunk.data.sources import Item, NoTargets
from onetrunk.data.task import Task


class Squares(NoTargets):
    """Images of growing size, of which every third is broken."""

    tasks: tuple[Task, ...] = (Task("classify", "classify", ("a", "b")),)

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def items(self) -> Iterator[Item]:
        for i in range(self.count):
            yield Item(f"{i:03}", str(i), "1", labels={"classify": "ab"[i % 2]})

    def image(self, where: str) -> Raw:
        self.read.append(int(where))
        if int(where) % 3 == 2:
            return b"no image"
        return np.zeros((10 + int(where), 100, 3), np.uint8)


def test_the_median_of_the_readable_images() -> None:
    assert median_side(Squares(5)) == 12  # of sides 10, 11, 13 and 14
    assert median_side(Squares(0)) is None


def test_only_the_first_images_are_read() -> None:
    source = Squares(1000)
    median_side(source, 6)
    assert source.read == [0, 1, 2, 3, 4, 5]


def test_the_header_is_enough() -> None:
    file = io.BytesIO()
    Image.new("RGB", (400, 300)).save(file, "JPEG")
    content = file.getvalue()
    assert size_of(content) == (300, 400)
    assert size_of(content[: len(content) // 2]) == (300, 400)
    assert size_of(Image.new("L", (5, 7))) == (7, 5)
    assert size_of(np.zeros((4, 6))) == (4, 6)
