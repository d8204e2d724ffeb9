"""`pocket:NAME`: real images of eleven domains inside the package, to try everything on.

A card (`assets/NAME.json`) names classes, sizes, labels and where the images are from; the
images of a split are one lossless sheet of equal tiles. docs/pocket.md shows them all.
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
from onetrunk.data.task import Task
from onetrunk.errors import BadInput

ASSETS = files("onetrunk.data") / "assets"


@lru_cache
def cards() -> dict[str, dict[str, Any]]:
    """The embedded domains' cards, by name."""
    found = [json.loads(p.read_text("utf-8")) for p in ASSETS.iterdir() if p.name.endswith(".json")]
    return {card["name"]: card for card in sorted(found, key=lambda card: str(card["name"]))}


class Pocket:
    """An embedded domain: sheets of tiles, cut when one is first asked for."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
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
        """Every tile of every split, in the card's order."""
        for split, part in self.card["splits"].items():
            stamp = f"{(ASSETS / self._sheet(split)).name}-{part['count']}-{self._mark}"
            for i in range(part["count"]):
                labels = {}
                if self.card["kind"] != "dense":
                    labels = {"classify": self.card["classes"][part["labels"][i]]}
                group = part["group_names"][part["groups"][i]]
                yield Item(f"{split}/{i:05}", f"{split}/{i}", stamp, split, group, labels)

    def image(self, where: str) -> U8:
        """A tile's pixels."""
        return self._tile(where, "")

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """A room's class map, depth or normals, from the planes that its pixels lie on."""
        if self.card["kind"] != "dense":
            return None
        asked, maps = self._last
        if asked != where:  # the three maps of a room are asked for one after the other
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
        """Changes with the images: the sizes of the sheets."""
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
    """A whole sheet, decoded once."""
    with as_file(ASSETS / name) as path, Image.open(path) as sheet:
        return np.asarray(sheet)


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
