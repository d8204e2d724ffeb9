"""A few decoded images of a source that stand for all of them, for estimates of time and size."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.cache import Decoded, cpus
from onetrunk.data.index import Index
from onetrunk.data.pixels import U8, Pixels
from onetrunk.data.sources import Source
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import (
    GOOD,
    RECORD,
    Frames,
    ReadImage,
    layers_of,
    read_image,
    summarize,
)
from onetrunk.errors import BadInput

IMAGES = 16  # of each split, if they take at most MOST_BYTES
MOST_BYTES = 256 * 2**20
# without thumbnails, which are most of a record: there is a record for every image
SMALL_RECORD = np.dtype([(n, RECORD[n]) for n in RECORD.names or () if n != "thumb"])


@dataclass(frozen=True)
class Sample:
    """Some images of a source.

    Attributes:
        decoded: A record for every image of the source; each row reads as one of the sample.
        images: The number of images that were read.
        seconds: The time to decode all images of the source.
        warnings: Messages for the user.
    """

    decoded: Decoded
    images: int
    seconds: float
    warnings: list[str]


class SampledFrames(Frames):
    """Reads an image of the sample for every row."""

    def __init__(
        self, arrays: dict[str, NDArray[Any]], places: NDArray[np.int64], like: Frames
    ) -> None:
        super().__init__(None, like.source, like.where, like.pixels, like.layers)
        self._arrays = arrays
        self._places = places

    def read(self, rows: NDArray[np.int64]) -> tuple[U8, dict[str, NDArray[Any]]]:
        """Return stored images (B, H, W, 3) and dense targets by task, as copies."""
        chosen = self._places[rows]
        names = [layer.task.name for layer in self.layers]
        return self._arrays["images"][chosen], {
            name: self._arrays[f"target.{name}"][chosen] for name in names
        }


def decode_sample(source: Source, index: Index, pixels: Pixels, name: str, seed: int) -> Sample:
    """Decode up to 16 images of each split, drawn with a seed, without writing anything."""
    layers = layers_of(index.tasks)
    rng = np.random.default_rng(seed)
    each = pixels.stored[0] * pixels.stored[1] * 3 + sum(x.bytes(pixels.stored) for x in layers)
    most = min(IMAGES, max(2, MOST_BYTES // len(SPLITS) // each))
    drawn = {split: _draw(index.rows(split), most, rng) for split in SPLITS}
    rows = np.concatenate(list(drawn.values()))

    def read(row: np.int64) -> ReadImage:
        return read_image(source, index.where[row], pixels, layers)

    threads = cpus()
    with ThreadPoolExecutor(threads) as pool:
        read(rows[0])  # loads the decoders, which is not timed
        began = time.perf_counter()
        images = list(pool.map(read, rows))
        seconds = (time.perf_counter() - began) / len(rows)
    part = summarize(images)
    good = part.records["status"] == GOOD
    if not good.any():
        raise BadInput(
            f"{name}: none of the {len(rows)} images of a sample can be read",
            got=f"{index.keys[rows[0]]}: {part.reasons[0]}",
            try_="onetrunk data SOURCE lists the bad files",
        )
    places = np.empty(len(index), np.int64)
    warnings, first = [], 0
    for split, own in drawn.items():
        positions = np.arange(first, first + len(own))
        first += len(own)
        usable = positions[good[positions]]
        bad = positions[~good[positions]]
        if len(bad):
            example = f"{index.keys[rows[bad[0]]]}: {part.reasons[int(bad[0])]}"
            warnings.append(
                f"{len(bad)} of {len(own)} sampled {split} images cannot be read; first: {example}"
            )
        # a split without a readable image in the sample has those of the others
        usable = usable if len(usable) else np.flatnonzero(good)
        mine = index.rows(split)
        places[mine] = np.resize(usable, len(mine))
    names = list(SMALL_RECORD.names or ())
    records = np.empty(len(index), SMALL_RECORD)
    for field in names:
        records[field] = part.records[field][places]
    like = Frames(None, source, index.where, pixels, layers)
    frames = SampledFrames(part.arrays, places, like)
    decoded = Decoded(Path(), records, {}, frames)
    return Sample(decoded, len(rows), seconds * len(index), warnings)


def _draw(rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return up to `most` rows in rising order."""
    if len(rows) <= most:
        return rows
    drawn: NDArray[np.int64] = np.sort(rng.choice(rows, most, replace=False))
    return drawn
