"""Sources that are Python objects: lists of pairs, tables in memory, datasets of other libraries.

| object | images and labels |
|---|---|
| a list or other sequence of (image, label) | paths, pictures, arrays, tensors or encoded bytes |
| a pandas or polars DataFrame | a column of paths and columns of labels, as in `table:` |
| a map-style `torch.utils.data.Dataset`, `Subset` included | its items (image, target) |
| torchvision's `ImageFolder` and `DatasetFolder` | the files and classes that it lists |
| a `datasets.Dataset` or `DatasetDict` | its columns, as in `hf:` |
| a mapping of "train", "val", "test" to any of these | its splits |

An `ImageFolder` or `DatasetFolder` with a loader, a `target_transform` or a `__getitem__` of the
user's own is read by its items, as other datasets are. No library is imported for this unless the
object is of that library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onetrunk.data.files.paths import expanded, split_of
from onetrunk.data.files.tables import ENDINGS
from onetrunk.data.sources import Source, SourceOptions, open_source
from onetrunk.errors import BadInput

FORMS = (
    "PREFIX:REST or package.module:thing",
    "a pathlib.Path of a folder or table",
    "a list of (image, label)",
    "a pandas or polars DataFrame",
    "a torch Dataset of (image, target)",
    "torchvision's ImageFolder",
    "a datasets.Dataset or DatasetDict",
    'a mapping of "train", "val" and "test" to these',
    "an object with tasks, items(), image() and target()",
)


def named_source(path: Path, base: Path) -> str:
    """Return the source of a path: `folder:` or `table:`, as a recipe writes it."""
    place = base / expanded(path)
    if path.suffix.lower() in ENDINGS and not place.is_dir():
        return f"table:{path}"
    if place.is_file():
        raise BadInput(
            "expected the path of a folder or of a table",
            got=str(path),
            available=ENDINGS,
            try_='a source that reads it, such as "coco:FILE" or "webdataset:SHARDS"',
        )
    return f"folder:{path}"


def check_form(thing: object) -> None:
    """Raise BadInput for an object that is not a source in any form."""
    library = _library(thing)
    if library in ("pandas", "polars") and hasattr(thing, "columns"):
        return
    if _is_hf(thing) or isinstance(thing, Source | Mapping | str | Path):
        return
    if isinstance(thing, Iterator):
        raise _unknown(thing, "a list: list(…) of it, so that it can be read more than once")
    shape = getattr(thing, "shape", None)
    if shape is not None or isinstance(thing, bytes | bytearray):
        raise _unknown(thing, "list(zip(images, labels))")
    if not (hasattr(thing, "__getitem__") and hasattr(thing, "__len__")):
        raise _unknown(thing)


def source_of(thing: Any, options: SourceOptions) -> Source:
    """Return the source that reads a Python object.

    Args:
        thing: An object that `check_form` has accepted.
        options: The user's settings.
    """
    if _library(thing) in ("pandas", "polars"):
        from onetrunk.data.objects.frame import Frame

        return Frame(thing, options)
    if _is_hf(thing):
        from onetrunk.data.sources.hf import HuggingFace

        return HuggingFace("", options, thing)
    if isinstance(thing, Source):
        return thing
    if isinstance(thing, Path):
        thing = named_source(thing, options.base)
    if isinstance(thing, str):
        return open_source(thing, options)
    if isinstance(thing, Mapping):
        return _splits(thing, options)
    from onetrunk.data.objects.pairs import pairs_of

    return pairs_of(thing, options)


def _splits(parts: Mapping[Any, Any], options: SourceOptions) -> Source:
    from onetrunk.data.objects.splits import Splits

    named = {name: split_of(name) if isinstance(name, str) else None for name in parts}
    if not parts or not all(named.values()) or len(set(named.values())) < len(named):
        raise BadInput(
            "expected a mapping of splits to images",
            got=", ".join(map(str, parts)) or "an empty one",
            available=("train", "val", "test"),
            try_='{"train": pairs, "test": others}, or a list of (image, label)',
        )
    for part in parts.values():
        check_form(part)
    return Splits(
        {split: source_of(parts[name], options) for name, split in named.items() if split}
    )


def _library(thing: object) -> str:
    return type(thing).__module__.partition(".")[0]


def _is_hf(thing: object) -> bool:
    """Return whether this is a dataset, or a dictionary of datasets, of Hugging Face."""
    return _library(thing) == "datasets" and type(thing).__name__ in ("Dataset", "DatasetDict")


def _unknown(thing: object, try_: str | None = None) -> BadInput:
    return BadInput(
        "expected a source of images", got=type(thing).__name__, available=FORMS, try_=try_
    )
