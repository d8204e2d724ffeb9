"""What is noted of every image that was looked at: a record of fixed size, a chunk at a time.

Looking at a whole chunk costs a third of looking at its images one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.duplicates import THUMB, thumbnails
from onetrunk.data.pixels import U8
from onetrunk.data.stored_images import BAD, BLANK, GOOD, UNREADABLE, Looked

SCAN = np.dtype(
    [
        ("status", "u1"),
        ("flags", "u1"),
        ("height", "<u4"),  # of the image as it is seen, after the EXIF turn
        ("width", "<u4"),
        ("digest", "<u8", 2),
        ("mean", "<f4", 3),  # of the stored pixels, 0…1, by channel
        ("square", "<f4", 3),  # mean of their squares
        ("thumb", "u1", (THUMB, THUMB)),
    ]
)
BLOCK = 2**22  # values of images that are worked on as floats at once


@dataclass
class Part:
    """Consecutive images after they were looked at: records, arrays by name, reasons by place."""

    scan: NDArray[np.void]
    arrays: dict[str, NDArray[Any]]  # (images, …) each; zeros where one cannot be read
    reasons: dict[int, str]


def gather(looked: Sequence[Looked]) -> Part:
    """What was seen of some images, as arrays."""
    scan = np.zeros(len(looked), SCAN)
    good = [i for i, one in enumerate(looked) if one.status == GOOD]
    for i, one in enumerate(looked):
        scan[i]["status"], scan[i]["flags"], scan[i]["digest"] = one.status, one.flags, one.digest
        scan[i]["height"], scan[i]["width"] = one.size
    arrays: dict[str, NDArray[Any]] = {}
    for name, like in (looked[good[0]].arrays if good else {}).items():
        empty = np.zeros_like(like)
        arrays[name] = np.stack([one.arrays.get(name, empty) for one in looked])
    if good:
        images = arrays["images"]
        step = max(1, BLOCK // images[0].size)
        for start in range(0, len(looked), step):
            rows = slice(start, start + step)
            part = images[rows]
            scan["mean"][rows], scan["square"][rows] = stats(part)
            scan["thumb"][rows] = thumbnails(part)
            flat = part.reshape(len(part), -1)
            # (an image that cannot be read is all zeros here; its status says what it is)
            scan["flags"][rows] |= np.where(flat.max(1) - flat.min(1) < 2, BLANK, 0).astype("u1")
    return Part(scan, arrays, {i: one.why for i, one in enumerate(looked) if one.why})


def stats(images_BHW3: U8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the values in 0…1 and of their squares, by image and channel.

    Whole rows are added up, as integers: a sum over interleaved channels is ten times slower.
    """
    count, height, width = images_BHW3.shape[:3]
    rows = images_BHW3.reshape(count, height, width * 3).astype(np.uint16)
    sums = [rows.sum(1, dtype=np.uint32), np.square(rows).sum(1, dtype=np.uint64)]
    by_channel = [s.reshape(count, width, 3).sum(1) / (height * width) for s in sums]
    return by_channel[0] / 255.0, by_channel[1] / 255.0**2


def read_records(folder: Path) -> NDArray[Any]:
    """The records that a folder of the cache holds, memory-mapped."""
    return np.memmap(folder / "scan.bin", SCAN, "r")


def read_reasons(folder: Path) -> dict[int, str]:
    """Why a row is bad; the newest line counts, and only for rows that are bad now."""
    try:
        lines = (folder / "bad.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    status = read_records(folder)["status"]
    found: dict[int, str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # a line cut by a kill: its row has no record either, and was redone
            continue
        if status[entry["row"]] in (BAD, UNREADABLE):
            found[entry["row"]] = entry["why"]
    return dict(sorted(found.items()))
