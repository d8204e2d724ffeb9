"""`pocket:NAME`: eleven small domains of real images inside the package.

A card (`assets/NAME.json`) holds classes, sizes, labels and the origin of the images. The images of
a split are the tiles of one lossless sheet. docs/pocket.md shows them all.

The domain with dense targets stores planes instead of maps: an index of a plane per pixel, and a
table of planes. A pinhole camera looks along −z (x right, y up, z to the viewer). Pixel (v, u) is
seen along r = ((u − cx)/fx, −(v − cy)/fy, −1), and its point is z·r, where z is its depth along the
optical axis. A surface is a plane n·p = d with its unit normal n towards the camera, so
z = d/(n·r), where d and n·r are both negative. An actor (a flat picture that faces the camera) has
no normal: n = 0, and d is its depth. Lengths are in metres.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.pixels import U8
from onetrunk.data.sources import Item, SourceOptions
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.errors import BadInput

F32 = NDArray[np.float32]
ASSETS = files("onetrunk.data") / "assets"


@lru_cache
def cards() -> dict[str, dict[str, Any]]:
    """Return the cards of the embedded domains, by name."""
    cards = [json.loads(p.read_text("utf-8")) for p in ASSETS.iterdir() if p.name.endswith(".json")]
    return {card["name"]: card for card in sorted(cards, key=lambda card: str(card["name"]))}


class Pocket:
    """An embedded domain. A sheet is read together with its first tile."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        if rest not in cards():
            raise BadInput("no such embedded domain", got=rest, available=cards())
        self.card = cards()[rest]
        self.size: tuple[int, int] = tuple(self.card["size"])
        self.flip: bool = bool(self.card.get("flip", False))
        self._last: tuple[str, dict[str, NDArray[Any]]] = ("", {})
        classes = tuple(self.card["classes"])
        if self.card["kind"] == "dense":
            self.tasks: tuple[Task, ...] = (
                Task("segment", "segment", classes),
                Task("depth", "depth", unit="m"),
                Task("normals", "normals"),
            )
        else:
            self.tasks = (Task("classify", "classify", classes),)

    def items(self) -> Iterator[Item]:
        """Yield every tile of every split, in the order of the card."""
        for split, part in self.card["splits"].items():
            stamp = f"{(ASSETS / self._sheet(split)).name}-{part['count']}-{self._mark}"
            for i in range(part["count"]):
                labels = {}
                if self.card["kind"] != "dense":
                    labels = {"classify": self.card["classes"][part["labels"][i]]}
                group = part["group_names"][part["groups"][i]]
                yield Item(f"{split}/{i:05}", f"{split}/{i}", stamp, split, group, labels)

    def image(self, where: str) -> U8:
        """Return the pixels of a tile."""
        return self._tile(where, "")

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """Return the class map, depth or normals of a tile, from the planes of its pixels."""
        if self.card["kind"] != "dense":
            return None
        last, maps = self._last
        if last != where:  # the three maps of a tile are read one after the other
            maps = self._maps(where)
            self._last = (where, maps)
        return maps[task]

    def _maps(self, where: str) -> dict[str, NDArray[Any]]:
        split, _, place = where.partition("/")
        first, last = self._tables[f"{split}.start"][int(place) : int(place) + 2]
        table = self._tables[f"{split}.surfaces"][first:last]
        segment, depth, normals = decode(self._tile(where, ".surface"), table, self.card["camera"])
        return {"segment": segment, "depth": depth, "normals": normals}

    def _sheet(self, split: str, layer: str = "") -> str:
        return f"{self.card['name']}.{split}{layer}.{self.card['format']}"

    def _tile(self, where: str, layer: str) -> U8:
        split, _, place = where.partition("/")
        height, width = self.size
        row, column = divmod(int(place), self.card["splits"][split]["columns"])
        sheet = _pixels(self._sheet(split, layer))
        tile = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        return tile if tile.ndim == 2 or not layer else tile[:, :, 0]

    @cached_property
    def _mark(self) -> str:
        """The sizes of the sheets, which change with the images."""
        return "-".join(
            str(len((ASSETS / self._sheet(s)).read_bytes())) for s in self.card["splits"]
        )

    @cached_property
    def _tables(self) -> dict[str, NDArray[Any]]:
        from safetensors.numpy import load

        return load((ASSETS / f"{self.card['name']}.safetensors").read_bytes())


SOURCE = Pocket


@lru_cache(maxsize=4)
def _pixels(name: str) -> U8:
    """Return a decoded sheet."""
    with as_file(ASSETS / name) as path, Image.open(path) as sheet:
        return np.asarray(sheet)


def decode(surface_HW: U8, table_K5: F32, camera: Mapping[str, float]) -> tuple[U8, F32, F32]:
    """Return class HW (255 = not labelled), depth HW and normals HW3 (0 = unknown).

    Args:
        surface_HW: The row of the table for each pixel.
        table_K5: class, nx, ny, nz, d of each plane.
        camera: fx, fy, cx, cy in pixels.
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
    depth[segment == NO_PIXEL] = 0.0
    return segment, depth.astype(np.float32), normal.astype(np.float32)
