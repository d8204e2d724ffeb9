"""Many strings in two flat arrays: a million names without a million Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


class Strings:
    """An immutable list of strings: their UTF-8 bytes end to end, and where each one starts."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        joined = bytearray()
        ends = [0]
        for string in strings:
            joined += string.encode("utf-8", "surrogateescape")
            ends.append(len(joined))
        self._bytes = bytes(joined)
        self._ends: NDArray[np.int64] = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int | np.integer) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = int(i) % len(self)
        raw = self._bytes[self._ends[i] : self._ends[i + 1]]
        return raw.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))
