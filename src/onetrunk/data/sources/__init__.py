"""Sources: one small file each, and the one place that turns `"folder:photos"` into one.

A source lists items without decoding anything, and reads one image at a time. It never resizes,
normalizes, splits or caches: that is the same for all of them and lives with the domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from onetrunk.data.listing import Item
from onetrunk.data.pixels import Raw
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.objects import load_object


@dataclass(frozen=True)
class Asked:
    """What the user said of a source beside its name; every source takes what concerns it."""

    base: Path = Path()  # relative paths start here: the recipe's folder, or the current one
    tasks: tuple[Task, ...] | None = (
        None  # the tasks that the user named; None: what the source has
    )
    image: str | None = None  # the column that holds the path or the image
    group: str | None = None  # a column, or a regular expression on the path
    split: str | None = None  # the column that names the split


@runtime_checkable
class Source(Protocol):
    """What every source can do; a user's own class does the same.

    A source may also have `notes: list[str]`: what it says of itself to people, a line each (files
    passed over, splits not used). They are complete once `items()` was read to its end; a problem
    that a source only finds there is raised there. One with `unlabelled = True` has no labels to
    expect: its tasks are taught by teachers alone.
    """

    tasks: tuple[Task, ...]
    """What its images are labelled with. Classes may be empty: then they are the names met. Those
    of a segment task are always known."""

    def items(self) -> Iterator[Item]:
        """Every image once, in an order that depends on the content alone; nothing is decoded."""
        ...

    def image(self, where: str) -> Raw:
        """One image, encoded (a path, bytes) or decoded (a picture, an array).

        `BadImage` where this one cannot be had, `Failed` where none can be (the network is down).
        """
        ...

    def target(self, where: str, task: str) -> NDArray[Any] | None:
        """A dense target of this image at its own size, None where it is not labelled.

        segment: (H, W) integers, 255 where a pixel has no label; depth: (H, W) float32 metres
        (or what the task's unit says), 0 where unknown; normals: (H, W, 3) float32 unit vectors (x
        right, y up, z to the viewer), 0 where unknown. `BadImage` where this one cannot be read.
        """
        ...


KNOWN: Mapping[str, str] = {
    "folder": "onetrunk.data.sources.folder:Folder",
    "unlabelled": "onetrunk.data.sources.unlabelled:Unlabelled",
    "table": "onetrunk.data.sources.table:Table",
    "hf": "onetrunk.data.sources.hf:HuggingFace",
    "torchvision": "onetrunk.data.sources.torchvision:TorchVision",
    "webdataset": "onetrunk.data.sources.webdataset:WebDataset",
    "coco": "onetrunk.data.sources.coco:Coco",
    "decathlon": "onetrunk.data.sources.decathlon:Decathlon",
    "nyuv2": "onetrunk.data.sources.nyuv2:NYUv2",
    "cityscapes": "onetrunk.data.sources.cityscapes:Cityscapes",
    "pocket": "onetrunk.data.pocket:Pocket",
}


def open_source(name: str, asked: Asked) -> Source:
    """The source behind `"prefix:rest"`, or behind the user's own `"package.module:thing"`.

    A source is a callable of (rest, asked); the user's own gets an empty rest.
    """
    prefix, colon, rest = name.partition(":")
    if not colon or (prefix not in KNOWN and "." not in prefix):
        raise BadInput(
            "expected a source as PREFIX:REST, or package.module:thing",
            got=name,
            available=[f"{known}:" for known in KNOWN],
            try_=f"folder:{name}" if Path(asked.base, name).is_dir() else None,
        )
    made = load_object(KNOWN.get(prefix, name), "source")
    source: Source = made(rest if prefix in KNOWN else "", asked)
    return source
