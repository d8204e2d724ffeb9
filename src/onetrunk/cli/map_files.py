"""Write predicted maps to files: arrays, and overlays on the images."""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from onetrunk.data.drawing import VIRIDIS, colour_scale, text_font
from onetrunk.data.pixels import U8
from onetrunk.data.task import Task
from onetrunk.errors import printable
from onetrunk.store.atomic import write_atomic
from onetrunk.store.places import check_folder, mark

GOLDEN = 0.618033988749895  # golden ratio: the hues of consecutive classes differ clearly
SHARE = 0.6  # opacity of the map in an overlay
ROWS = 32  # classes in a column of the legend


class Maps:
    """A folder of maps: IMAGE.TASK.png (class numbers) or .npy, and IMAGE.TASK.overlay.png.

    Depth in metres is also written as a 16-bit PNG in millimetres. TASK.classes.txt and
    TASK.legend.png list the numbers and colours of the classes.
    """

    def __init__(self, folder: Path) -> None:
        check_folder(folder, "one of maps that `onetrunk predict` wrote", lambda _: False)
        self.folder = folder
        self.count = 0
        self._taken: set[str] = set()
        self._explained: set[str] = set()

    def write(
        self, name: PurePosixPath, image: U8, tasks: Mapping[Task, NDArray[Any]]
    ) -> dict[str, str]:
        """Write the maps of one image, and return their paths by task."""
        if not self.count:
            mark(self.folder, "predicted maps")
        stem = self._stem(name)
        where: dict[str, str] = {}
        for task, values in tasks.items():
            path = self.folder / f"{stem}.{task.name}{'.png' if task.kind == 'segment' else '.npy'}"
            if task.kind == "segment":
                picture = Image.fromarray(values)
                picture.putpalette(palette().tobytes())
                _save(path, picture)
                self._explain(task)
            else:
                buffer = io.BytesIO()
                np.save(buffer, values.astype(np.float32), allow_pickle=False)
                write_atomic(path, buffer.getvalue())
            if task.kind == "depth" and not task.inverse:
                _save(path.with_suffix(".png"), Image.fromarray(millimetres(values)))
            coloured = colours(task, values)
            mixed = np.rint(SHARE * coloured + (1 - SHARE) * image).astype(np.uint8)
            _save(self.folder / f"{stem}.{task.name}.overlay.png", Image.fromarray(mixed))
            where[task.name] = str(path)
            self.count += 1
        return where

    def _explain(self, task: Task) -> None:
        """Write the names and colours of the classes, once per task."""
        if task.name not in self._explained:
            self._explained.add(task.name)
            names = "".join(f"{name}\n" for name in task.classes)
            write_atomic(self.folder / f"{task.name}.classes.txt", names.encode())
            _save(self.folder / f"{task.name}.legend.png", legend(task))

    def _stem(self, name: PurePosixPath) -> str:
        """Return a unique name for the files of an image: its own name without the ending."""
        parts = [part for part in name.parts if part not in ("/", "..", ".")]
        plain = PurePosixPath(*parts)
        for stem in (str(plain.with_suffix("")), str(plain)):
            if stem not in self._taken:
                break
        number = 2
        while stem in self._taken:
            stem = f"{plain}-{number}"
            number += 1
        self._taken.add(stem)
        return stem


def colours(task: Task, values: NDArray[Any]) -> U8:
    """Return a map as a picture: a colour per class, near bright, or normals x, y, z as RGB."""
    if task.kind == "segment":
        picked: U8 = palette()[values]
        return picked
    if task.kind == "normals":
        turned: U8 = np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        return turned
    low, high = float(values.min()), float(values.max())
    near = (values - low) / max(high - low, 1e-6)
    near = near if task.inverse else 1 - near
    return colour_scale(VIRIDIS, near)


def millimetres(metres: NDArray[Any]) -> NDArray[np.uint16]:
    """Return depth in millimetres, as `folder:` reads it, clipped to 0 to 65.535 metres."""
    rounded: NDArray[np.uint16] = np.rint(1000 * metres).clip(0, 65_535).astype(np.uint16)
    return rounded


def legend(task: Task) -> Image.Image:
    """Draw the colour, number and name of each class, 32 in a column."""
    font = text_font(12)
    words = [printable(f"{number}  {name}") for number, name in enumerate(task.classes)]
    wide = 34 + math.ceil(max(font.getlength(word) for word in words))
    columns, rows = math.ceil(len(words) / ROWS), min(len(words), ROWS)
    picture = Image.new("RGB", (wide * columns + 6, 20 * rows + 6), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for number, (word, colour) in enumerate(zip(words, palette().tolist(), strict=False)):
        x, y = 6 + number // ROWS * wide, 6 + number % ROWS * 20
        pen.rectangle((x, y, x + 17, y + 13), fill=tuple(colour))
        pen.text((x + 24, y - 1), word, fill=(0, 0, 0), font=font)
    return picture


def palette() -> U8:
    """Return 256 colours, of which consecutive ones differ clearly; 255 (unlabelled) is black."""
    rgb = np.array(
        [colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.75, 0.75 if i % 2 else 0.95) for i in range(256)]
    )
    rgb[255] = 0
    colours: U8 = np.rint(255 * rgb).astype(np.uint8)
    return colours


def _save(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
