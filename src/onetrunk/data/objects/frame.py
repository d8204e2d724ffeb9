"""A pandas or polars DataFrame as a source: the columns of `table:`, in memory.

Relative paths start at the domain's `base`, by default the current folder. Unlike those of a file,
paths may lie anywhere, as the frame is the user's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onetrunk.data.files.labels import is_missing
from onetrunk.data.files.paths import Root
from onetrunk.data.files.tables import Row
from onetrunk.data.objects.images import key_of, path_of
from onetrunk.data.sources import SourceOptions
from onetrunk.data.sources.table import Table
from onetrunk.errors import BadInput

CHUNK = 4096  # rows


class Frame(Table):
    """The rows of a DataFrame."""

    def __init__(self, frame: Any, options: SourceOptions) -> None:
        self.notes = []
        self._set_up("a DataFrame", FrameRows(frame), Anywhere(options.base), options)

    def _path(self, value: Any, where: str) -> str | None:
        return super()._path(os.fspath(value) if isinstance(value, Path) else value, where)


class FrameRows:
    """The columns and rows of a DataFrame."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.columns = [str(name) for name in frame.columns]
        if len(set(self.columns)) < len(self.columns):
            raise BadInput("a DataFrame: expected a different name for every column")
        if not len(frame):
            raise BadInput("a DataFrame: expected at least one row", got="none")

    def read(self, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Yield ("row 0", {column: cell}) for every row, counted from 0 as in the frame."""
        names = list(dict.fromkeys(columns))
        places = [self.columns.index(name) for name in names]
        lists = [self._column(self._frame[self._frame.columns[place]]) for place in places]
        for number, cells in enumerate(zip(*lists, strict=True)):
            yield f"row {number}", dict(zip(names, cells, strict=True))

    @staticmethod
    def _column(series: Any) -> list[Any]:
        """Return the cells in Python's own types; missing ones are None."""
        cells = [_plain(cell) for cell in series.to_list()]
        numbers = [cell for cell in cells if isinstance(cell, float)]
        # pandas turns whole numbers into floats where a cell is missing
        if None in cells and numbers and all(cell.is_integer() for cell in numbers):
            return [int(cell) if isinstance(cell, float) else cell for cell in cells]
        return cells


class Anywhere(Root):
    """A folder that relative paths start from, and paths outside of it."""

    def find(self, name: str) -> Path | None:
        """Return the path of a name."""
        return None if "\0" in name else path_of(name, self.folder)

    def key(self, path: Path) -> str:
        """Return the path relative to the folder where it lies inside, else in full."""
        return key_of(path, self.folder)


def _plain(cell: Any) -> Any:
    if isinstance(cell, np.generic | np.ndarray):
        cell = cell.tolist()
    return None if is_missing(cell) else cell
