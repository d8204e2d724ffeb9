"""Safetensors files: named tensors with a header, written without a copy and read with checks.

A file is the length of its header (8 bytes), the header in JSON, and the tensors' bytes one after
another. Tensors are written directly from their memory, as safetensors' writer copies all of them
first and hides the error of a full disk. `RowsWriter` writes arrays of equal length a few rows at a
time, and can continue after a kill. Files are not trusted when they are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.store.atomic import replace_file, write_atomic

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}
ROW_DTYPES: Mapping[str, str] = {"F16": "<f2", "F32": "<f4"}
MAX_HEADER = 1_000_000  # bytes
KEY = "onetrunk"  # the entry of the metadata that holds onetrunk's document
RowSpec = tuple[str, tuple[int, ...]]  # a name in ROW_DTYPES, and the shape of one row


@dataclass(frozen=True)
class Header:
    """The header of a file: its metadata, and the position of each tensor."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Any]  # name -> dtype, shape, data_offsets; not checked
    size: int  # bytes before the first tensor

    def document(self, path: Path, kind: str, format_: int) -> dict[str, Any]:
        """Return the JSON document that onetrunk wrote into the metadata.

        Args:
            path: The file, for messages.
            kind: What the file is, for messages: "pack", "trunk".
            format_: The format that this version writes and reads.
        """
        try:
            document = json.loads(self.metadata[KEY], parse_constant=_no_constant)
            if not isinstance(document, dict) or not isinstance(document["format"], int):
                raise TypeError("a document without a format")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInput(
                f"{path.name} is not a {kind} that onetrunk wrote", got=str(error)[:100]
            ) from None
        if document["format"] != format_:
            newer = document["format"] > format_
            raise BadInput(
                f"{path.name}: this version reads files of kind {kind} of format {format_}",
                got=f"format {document['format']}",
                try_="pip install --upgrade onetrunk"
                if newer
                else "train again: no version reads the files of earlier development",
            )
        return document


def read_header(path: Path, file: IO[bytes] | None = None) -> Header:
    """Read the header of a file, or of an open file at its start.

    Raises BadInput for another kind of file, and OSError if it cannot be read.
    """
    if file is None:
        with path.open("rb") as opened:
            return read_header(path, opened)
    try:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > MAX_HEADER:
            raise ValueError(f"a header of more than {MAX_HEADER:,} bytes")
        tensors = json.loads(file.read(size))
        metadata = tensors.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise TypeError("metadata that is not a table")
        return Header(metadata, tensors, 8 + size)
    except (ValueError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise BadInput(f"{path.name} is not a safetensors file", got=str(error)[:100]) from None


def write_tensors(
    file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors of any device in row-major order; return the SHA-256 of all bytes."""
    if sys.byteorder != "little":
        raise BadInput(
            "safetensors files are little-endian", got=f"a {sys.byteorder}-endian machine"
        )
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided or name == "__metadata__":
            raise BadInput(
                f"cannot store the tensor {name}",
                got=f"{tensor.dtype}, {tensor.layout}",
                available=DTYPES,
            )
    header, starts, _ = _make_header(_specs(tensors), metadata)
    file.write(header)
    digest = hashlib.sha256(header)
    for name in starts:
        flat = tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        if flat.numel():
            data = flat.view(torch.uint8).numpy().data
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> int:
    """Return the size of the file that `write_tensors` writes."""
    header, _, end = _make_header(_specs(tensors), metadata)
    return len(header) + end


def _specs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Return the code of the dtype, the shape and the bytes of one element of each tensor."""
    return {
        name: (DTYPES[t.dtype], tuple(t.shape), t.element_size()) for name, t in tensors.items()
    }


def read_tensors(path: Path, file: IO[bytes] | None = None) -> dict[str, Tensor]:
    """Read all tensors of a file, or of an open file at its start, into memory."""
    try:
        return load(path.read_bytes() if file is None else file.read())
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{path.name} is damaged", got=str(error).split("\n")[0][:100]) from None


class RowsWriter:
    """Write arrays of `count` rows each, a few rows at a time.

    The file is written under a temporary name, and a second file (the mark) has the number of rows
    that are synced to disk: the next writer of the same file continues after these. Rows are not
    written through a memory map, because that kills the process if the disk is full.

        with RowsWriter(path, {"x": ("F16", (64,))}, count=1000, about="features") as file:
            while file.done < file.count:
                file.write({"x": rows(file.done)})
            file.finish()
    """

    def __init__(self, path: Path, rows: Mapping[str, RowSpec], count: int, about: str) -> None:
        self.path, self.count = path, count
        self._rows = {name: rows[name] for name in sorted(rows)}
        self._header, self._starts, end = _make_header(
            {
                name: (code, (count, *shape), np.dtype(ROW_DTYPES[code]).itemsize)
                for name, (code, shape) in self._rows.items()
            },
            {"about": about},
        )
        self.bytes = len(self._header) + end  # of the finished file
        self._part = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.json")
        self._digest = hashlib.sha256(self._header).hexdigest()
        self.done = self._rows_on_disk()
        self._file: IO[bytes] | None = None

    def row_bytes(self, name: str) -> int:
        """Return the bytes of one row of an array."""
        code, shape = self._rows[name]
        return np.dtype(ROW_DTYPES[code]).itemsize * math.prod(shape)

    def _rows_on_disk(self) -> int:
        """Return the number of rows that an earlier writer of the same file has synced."""
        try:
            mark = json.loads(self._mark.read_text("utf-8"))
            if mark["of"] == self._digest and self._part.stat().st_size <= self.bytes:
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

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("RowsWriter is used outside of its `with` block")
        return self._file

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the next rows of every array."""
        file = self._opened()
        (rows,) = {len(array) for array in arrays.values()}
        for name, (code, shape) in self._rows.items():
            if arrays[name].shape != (rows, *shape):
                raise BadInput(f"{name}: expected rows of {shape}", got=arrays[name].shape[1:])
            start = self._starts[name] + self.done * self.row_bytes(name)
            file.seek(len(self._header) + start)
            file.write(np.ascontiguousarray(arrays[name], ROW_DTYPES[code]).tobytes())
        self.done += rows

    def keep(self) -> None:
        """Sync the written rows, so that a later writer can continue after them."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        write_atomic(self._mark, json.dumps({"rows": self.done, "of": self._digest}))

    def finish(self) -> None:
        """Give the complete file its final name."""
        self.keep()
        self.__exit__()
        replace_file(self._part, self.path)
        self._mark.unlink(missing_ok=True)


def read_rows(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """Return the `about` text of a file that `RowsWriter` wrote, and its arrays, memory-mapped."""
    try:
        header = read_header(path)
        length = path.stat().st_size - header.size
        about = header.metadata["about"]
        if not isinstance(about, str):
            raise TypeError("about is not text")
        arrays = {}
        for name, entry in header.tensors.items():
            shape = tuple(int(side) for side in entry["shape"])
            begin, end = (int(place) for place in entry["data_offsets"])
            dtype = np.dtype(ROW_DTYPES[entry["dtype"]])
            if min(shape) < 1 or not 0 <= begin < end <= length:
                raise ValueError(f"{name} is outside the file")
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(f"{name} has another size than its shape")
            array = np.memmap(path, dtype, "r", header.size + begin, shape)
            arrays[name] = np.asarray(array)
        return about, arrays
    except OSError as error:
        raise BadInput(f"cannot read {path.name}", got=error.strerror or str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = error.got if isinstance(error, BadInput) else str(error)[:100]
        raise BadInput(f"{path.name} was not written by RowsWriter", got=got) from None


def _make_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str] | None
) -> tuple[bytes, dict[str, int], int]:
    """Return the bytes before the tensors, where each starts (in order), and where the last ends.

    Args:
        tensors: For each name the code of the dtype, the shape, and the bytes of one element.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    starts: dict[str, int] = {}
    end = 0
    # widest elements first: every tensor then starts at a multiple of its element's size
    for name in sorted(tensors, key=lambda name: (-tensors[name][2], name)):
        code, shape, element = tensors[name]
        starts[name], end = end, end + math.prod(shape) * element
        offsets = [starts[name], end]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if metadata and len(text) > MAX_HEADER:
        raise BadInput(
            f"expected a header of at most {MAX_HEADER:,} bytes for a file with metadata",
            got=f"{len(text):,}",
        )
    return struct.pack("<Q", len(text)) + text, starts, end


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} in a document")


def fingerprint_of(tensors: Mapping[str, Tensor], document: object = None) -> str:
    """Return the SHA-256 of a document and of tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
