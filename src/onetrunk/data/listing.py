"""What a source brings before anything is decoded: items with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Label = str | float | tuple[str, ...] | tuple[float, ...] | None
"""A class's name (classify, embed); names (multilabel); a number or numbers (regress); None where
this image has no label. Dense targets are no labels: the source reads them beside the image."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, not yet read.

    `key` is its stable name, unique in the source and shown to people (a path relative to the
    source, with forward slashes); the split by hash depends on it, or on `group`. `where` is what
    the source needs to find it again (often the key). `stamp` changes when its content does (size
    and time of a file, a row's hash): the cache is keyed by it.
    """

    key: str
    where: str
    stamp: str
    split: str | None = None  # "train", "val" or "test" where the source says so
    group: str | None = None  # what must not straddle splits
    labels: Mapping[str, Label] = field(default_factory=dict)  # task's name -> label
