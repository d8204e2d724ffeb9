"""Arrays of one length in a safetensors file, written a few rows at a time and read by rows.

The file grows beside its place, with its whole header at once, and a mark beside it says how many
rows are whole: who was killed goes on after these. It is written as any file is, not through a map,
where a full disk would end the process without a word; it is read through a map.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.errors import BadInput
from onetrunk.store.atomic import sync_folder, write_atomic

KINDS: Mapping[str, str] = {"F16": "<f2", "F32": "<f4"}
HEADER = 2**20  # bytes
Form = tuple[str, tuple[int, ...]]  # of KINDS, and the shape of a row


class RowsWriter:
    """`with RowsWriter(path, forms, count, about) as file: file.write(file.done, arrays)`"""

    def __init__(self, path: Path, forms: Mapping[str, Form], count: int, about: str) -> None:
        self.path, self.count = path, count
        self.forms = {name: forms[name] for name in sorted(forms)}
        header: dict[str, Any] = {"__metadata__": {"about": about}}
        self._starts: dict[str, int] = {}
        end = 0
        # widest numbers first: every array then starts at a multiple of their size
        for name in sorted(self.forms, key=lambda name: (-self._bytes(name), name)):
            kind, shape = self.forms[name]
            self._starts[name], end = end, end + count * self.row_bytes(name)
            header[name] = {
                "dtype": kind,
                "shape": [count, *shape],
                "data_offsets": [self._starts[name], end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._header = struct.pack("<Q", len(text)) + text
        self.bytes = len(self._header) + end
        self._part = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.json")
        self._of = hashlib.sha256(self._header).hexdigest()
        self.done = self._whole()
        self._file: IO[bytes] | None = None

    def _bytes(self, name: str) -> int:
        return np.dtype(KINDS[self.forms[name][0]]).itemsize

    def row_bytes(self, name: str) -> int:
        """Of one row of one array."""
        return self._bytes(name) * math.prod(self.forms[name][1])

    def _whole(self) -> int:
        """Rows that an earlier writer of the very same file finished."""
        try:
            mark = json.loads(self._mark.read_text("utf-8"))
            if mark["of"] == self._of and self._part.stat().st_size <= self.bytes:
                return min(int(mark["rows"]), self.count)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0

    def __enter__(self) -> RowsWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.done:
            self._mark.unlink(missing_ok=True)
            self._part.write_bytes(self._header)
        self._file = self._part.open("r+b")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The next rows of every array."""
        assert self._file is not None
        (rows,) = {len(array) for array in arrays.values()}
        for name, (kind, shape) in self.forms.items():
            if arrays[name].shape != (rows, *shape):
                raise BadInput(f"{name}: expected rows of {shape}", got=arrays[name].shape[1:])
            self._file.seek(
                len(self._header) + self._starts[name] + self.done * self.row_bytes(name)
            )
            self._file.write(np.ascontiguousarray(arrays[name], KINDS[kind]).tobytes())
        self.done += rows

    def keep(self) -> None:
        """What is written so far outlives this process."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        write_atomic(self._mark, json.dumps({"rows": self.done, "of": self._of}))

    def finish(self) -> None:
        """The whole file, in its place."""
        self.keep()
        self.__exit__(None, None, None)
        os.replace(self._part, self.path)
        self._mark.unlink(missing_ok=True)
        sync_folder(self.path.parent)


def read_rows(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """What the file says about itself, and its arrays, mapped; nothing in it is trusted."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > HEADER:
                raise ValueError("a header over 1 MB")
            header = json.loads(file.read(size))
            length = file.seek(0, os.SEEK_END) - 8 - size
        about = header.pop("__metadata__")["about"]
        if not isinstance(about, str):
            raise TypeError("about is a text")
        arrays = {}
        for name, entry in header.items():
            shape = tuple(int(side) for side in entry["shape"])
            begin, end = (int(place) for place in entry["data_offsets"])
            kind = np.dtype(KINDS[entry["dtype"]])
            if min(shape) < 1 or not 0 <= begin < end <= length:
                raise ValueError(f"{name} lies outside the file")
            if math.prod(shape) * kind.itemsize != end - begin:
                raise ValueError(f"{name} has another size than it says")
            arrays[name] = np.memmap(path, kind, "r", 8 + size + begin, shape)
        return about, {name: np.asarray(array) for name, array in arrays.items()}
    except OSError as error:
        raise BadInput(f"cannot read {path.name}", got=error.strerror or str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise BadInput(
            f"{path.name} holds no rows that onetrunk wrote", got=str(error)[:100]
        ) from None
