"""Members of a tar of samples, indexed by its headers so that each can be read on its own."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from onetrunk.errors import BadInput

SMALL = frozenset({"cls", "json", "txt"})  # endings of labels
SMALL_BYTES = 1 << 20  # the most bytes of labels
LARGE_BYTES = 1 << 29  # of images
PICKLES = frozenset({"pyd", "pkl", "pickle", "pth", "pt", "dill", "joblib"})
AGAIN = "write or download it again"
CLEAN = "write the shard again without it"
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}


class Readable(Protocol):
    """The methods of a file that reading a tar needs."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> object: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar.

    Attributes:
        key: Its path up to the first dot of its name.
        ending: What follows that dot.
        offset, size: Where its bytes are.
        data: Its bytes, of labels only.
        check: The CRC-32 of its bytes if they were read, else 0.
    """

    key: str
    ending: str
    offset: int
    size: int
    data: bytes | None
    check: int


def members(file: Readable, name: str, *, length: int | None, check: bool) -> Iterator[Member]:
    """Yield the files of a tar in order; raise BadInput for a damaged or hostile tar.

    Args:
        name: The name of the tar for messages.
        length: Its size in bytes, if known.
        check: Whether to read all bytes for their checksums.
    """
    for magic, kind in COMPRESSED.items():
        if name.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")) or _starts(file, magic):
            raise BadInput(
                f"{name}: single samples cannot be read from a compressed tar",
                got=kind if _starts(file, magic) else name.rpartition(".")[2],
                try_="decompress it to a plain .tar (images are compressed already)",
            )
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            while (info := tar.next()) is not None:
                tar.members.clear()  # otherwise tarfile keeps all of them
                if not info.isdir():
                    yield _member(file, info, name, length, check)
            end = tar.offset
        file.seek(end)
        mark = file.read(512)
    except (tarfile.TarError, OverflowError, MemoryError, ValueError, OSError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{name}: not a complete tar", got=str(error), try_=AGAIN) from None
    if len(mark) < 512 or any(mark):
        got = "its end is missing" if len(mark) < 512 else f"no header at byte {end}"
        raise BadInput(f"{name}: a damaged tar", got=got, try_=AGAIN)


def _starts(file: Readable, magic: bytes) -> bool:
    peek = getattr(file, "peek", None)
    return peek is not None and peek(8)[: len(magic)] == magic


def _member(
    file: Readable, info: tarfile.TarInfo, name: str, length: int | None, check: bool
) -> Member:
    place = f"{name}: {info.name!a}"
    folder, slash, base = info.name.rpartition("/")
    stem, _, ending = base.partition(".")
    ending = ending.lower()
    if not info.isreg() or info.issparse():
        raise BadInput(
            f"{place} is a link, a device or a sparse file, not a regular file", try_=CLEAN
        )
    if ending.rpartition(".")[2] in PICKLES:
        raise BadInput(f"{place} would run code when it is read (a pickle)", try_=CLEAN)
    limit = SMALL_BYTES if ending in SMALL else LARGE_BYTES
    if not 0 <= info.size <= limit:
        raise BadInput(f"{place}: expected at most {limit} bytes", got=info.size, try_=CLEAN)
    if length is not None and info.offset_data + info.size > length:
        raise BadInput(f"{place} reaches beyond the end of the tar", try_=AGAIN)
    try:
        info.name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{place}: a name that is not UTF-8", try_=CLEAN) from None
    data, crc = None, 0
    if check or ending in SMALL:
        file.seek(info.offset_data)
        parts, left = [], info.size
        while left and (part := file.read(min(left, 1 << 20))):
            left -= len(part)
            crc = zlib.crc32(part, crc)
            if ending in SMALL:
                parts.append(part)
        if left:
            raise BadInput(f"{place} is truncated", try_=AGAIN)
        data = b"".join(parts) if ending in SMALL else None
    return Member(f"{folder}{slash}{stem}", ending, info.offset_data, info.size, data, crc)


class Forward:
    """A stream with `tell`, and a `seek` that can go forward, or back by one block, for tarfile."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        self._last = b""  # the last read, if it was one block
        self._ahead = b""  # the part of it that is read again

    def read(self, size: int, /) -> bytes:
        """Return exactly this many bytes, or fewer at the end of the stream."""
        parts = [self._ahead[:size]]
        self._ahead = self._ahead[size:]
        left = size - len(parts[0])
        while left > 0 and (part := self._stream.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        self._at += size - left
        data = b"".join(parts)
        self._last = data if size <= 512 else b""
        return data

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._at

    def seek(self, offset: int, /) -> int:
        """Move to a byte."""
        back = self._at - offset
        if back > len(self._last):
            raise OSError("a stream cannot go back")
        if back > 0:
            self._ahead = self._last[-back:] + self._ahead
            self._last, self._at = b"", offset
        while self._at < offset and self.read(min(offset - self._at, 1 << 20)):
            pass
        return self._at
