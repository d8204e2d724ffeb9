"""Decode once, then memory-mapped.

One folder holds what was decoded of one source at one stored size and fit, keyed by the content of
the source: `scan.bin`, a record an image (readable? how large? digest, thumbnail, channel sums),
`images.bin`, the pixels, and `target.TASK.bin`, the dense targets. Pixels are written and synced
before their records are, so a build that is killed goes on where its records end. A lock, freed by
its process's death, lets one process build; the others wait and then share the pages.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.frames import BAD, TODO, UNREADABLE, Frames, Layer, layers_of, read_one
from onetrunk.data.index import Index
from onetrunk.data.pixels import Pixels
from onetrunk.data.sources import Source
from onetrunk.errors import Failed
from onetrunk.progress import Track, say
from onetrunk.store.atomic import write_atomic

FORMAT = 1  # part of the key: a new layout never meets an old folder
CHUNK_BYTES = 32 * 2**20  # decoded between two syncs; two chunks are in memory at once
SPARE = 512 * 2**20  # bytes of the disk that the cache never takes

SCAN = np.dtype(
    [
        ("status", "u1"),
        ("flags", "u1"),
        ("height", "<u4"),  # of the image as it is seen, after the EXIF turn
        ("width", "<u4"),
        ("digest", "<u8", 2),
        ("mean", "<f4", 3),  # of the stored pixels, 0…1, by channel
        ("square", "<f4", 3),  # mean of their squares
        ("thumb", "u1", (16, 16)),
    ]
)


def cache_home() -> Path:
    """Where decoded images are kept: $ONETRUNK_CACHE, else the user's cache folder."""
    named = os.environ.get("ONETRUNK_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onetrunk"


@dataclass
class Decoded:
    """A source after it was looked at: what is readable, what was seen, how to get the pixels."""

    folder: Path
    scan: NDArray[Any]  # SCAN records
    reasons: dict[int, str]  # row -> why it cannot be read
    frames: Frames


def decode_all(
    source: Source,
    index: Index,
    pixels: Pixels,
    *,
    name: str,
    home: Path | None = None,
    keep: bool = True,
) -> Decoded:
    """All images of a source, from the cache if they are there; `keep=False` stores no pixels."""
    layers = layers_of(index.tasks)
    key = _key(index, pixels, layers)
    folder = _writable(home or cache_home(), name) / key
    if keep and not _finished(folder):
        keep = _fits(folder, len(index), pixels, layers, name)
    if not keep:
        folder = folder.with_name(f"{key}-looked")  # records alone
    folder.mkdir(exist_ok=True)
    if not _finished(folder):
        with _locked(folder, name):
            if not _finished(folder):
                _build(folder, source, index, pixels, layers, name, keep)
    frames = Frames(folder if keep else None, source, index.where, pixels, layers)
    return Decoded(folder, _records(folder), _reasons(folder), frames)


def purge(home: Path | None = None) -> tuple[Path, int]:
    """Empty the cache; its place and the bytes that were freed."""
    home = home or cache_home()
    size = sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) if home.exists() else 0
    for folder in home.glob("*-*x*"):
        shutil.rmtree(folder)
    for lock in home.glob("*.lock"):
        lock.unlink()
    return home, size


def bytes_needed(count: int, pixels: Pixels, layers: Sequence[Layer]) -> int:
    """What the cache of so many images takes on the disk."""
    height, width = pixels.stored
    each = 3 * height * width + sum(layer.bytes(pixels.stored) for layer in layers)
    return count * (each + SCAN.itemsize)


def _key(index: Index, pixels: Pixels, layers: Sequence[Layer]) -> str:
    """What decides the stored bytes, and nothing else: neither whitening nor the crop's size."""
    document = [FORMAT, index.fingerprint, pixels.stored, pixels.fit, pixels.fill]
    document += [[layer.task.name, layer.task.kind, layer.task.classes] for layer in layers]
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()[:24]
    return f"{digest}-{pixels.stored[0]}x{pixels.stored[1]}"


def _writable(home: Path, name: str) -> Path:
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except OSError:
        pass
    fallback = Path(tempfile.gettempdir()) / "onetrunk-cache"
    say(f"{name}: the cache {home} cannot be written, {fallback} is used; next: ONETRUNK_CACHE=…")
    fallback.mkdir(exist_ok=True)
    return fallback


def _fits(folder: Path, count: int, pixels: Pixels, layers: Sequence[Layer], name: str) -> bool:
    need = bytes_needed(count, pixels, layers)
    there = sum(f.stat().st_size for f in folder.glob("*.bin"))
    free = shutil.disk_usage(folder.parent).free + there - SPARE
    if need <= free:
        if need > 2**30:
            say(f"{name}: the cache takes {need / 1e9:.1f} GB in {folder.parent}")
        return True
    say(
        f"{name}: the cache would take {need / 1e9:.1f} GB, {max(free, 0) / 1e9:.1f} GB are free "
        f"in {folder.parent}: images are read from their files, more slowly; "
        "next: ONETRUNK_CACHE=/a/larger/disk"
    )
    return False


def _finished(folder: Path) -> bool:
    return (folder / "done.json").exists()


class _locked:
    """The one process that may build in a folder; others wait, and say so."""

    def __init__(self, folder: Path, name: str) -> None:
        self.lock = FileLock(f"{folder}.lock")
        self.name = name

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            say(f"{self.name}: another process decodes the same images; waiting for it")
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _build(
    folder: Path,
    source: Source,
    index: Index,
    pixels: Pixels,
    layers: Sequence[Layer],
    name: str,
    keep: bool,
) -> None:
    """Decode what has no record yet, chunk by chunk: pixels, sync, records."""
    count = len(index)
    files: dict[str, IO[bytes]] = {}
    try:
        _allocate(folder / "scan.bin", count * SCAN.itemsize)
        if keep:
            sizes = {"images": 3 * pixels.stored[0] * pixels.stored[1]}
            sizes |= {f"target.{x.task.name}": x.bytes(pixels.stored) for x in layers}
            for file, size in sizes.items():
                _allocate(folder / f"{file}.bin", count * size)
                files[file] = (folder / f"{file}.bin").open("r+b")
        files["scan"] = (folder / "scan.bin").open("r+b")
        scan = _records(folder)
        todo = np.flatnonzero((scan["status"] == TODO) | (scan["status"] == UNREADABLE))
        with Track(f"{name}: decoding", count) as track, (folder / "bad.jsonl").open("a") as bad:
            track(count - len(todo))
            for rows, results in _decoded(source, index, pixels, layers, todo):
                scan = np.zeros(len(rows), SCAN)
                for i, (row, result) in enumerate(zip(rows, results, strict=True)):
                    scan[i] = result.record
                    if result.why:
                        bad.write(json.dumps({"row": int(row), "why": result.why}) + "\n")
                    elif keep:
                        for file, array in result.arrays.items():
                            files[file].seek(int(row) * array.nbytes)
                            files[file].write(array.data)
                bad.flush()
                _sync(f for file, f in files.items() if file != "scan")
                for first, last in _runs(rows):
                    files["scan"].seek(int(rows[first]) * SCAN.itemsize)
                    files["scan"].write(scan[first:last].tobytes())
                _sync([files["scan"]])
                track(len(rows))
    except OSError as error:
        raise Failed(
            f"{name}: the cache {folder} cannot be written ({error.strerror or error}); what is "
            "there is kept; next: free some space or set ONETRUNK_CACHE, then run it again"
        ) from None
    finally:
        for handle in files.values():
            handle.close()
    if not (_records(folder)["status"] == UNREADABLE).any():
        document = {"name": name, "count": count, "pixels": pixels.to_json()}
        write_atomic(folder / "done.json", json.dumps(document) + "\n")


def _decoded(
    source: Source, index: Index, pixels: Pixels, layers: Sequence[Layer], todo: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], list[Any]]]:
    """Chunks of decoded images, in order, a few ahead of whoever writes them.

    Threads: pillow's decoders and resizing release the interpreter's lock.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(cpus()) as pool:
        # our own limit refuses what pillow would only warn of
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        size = min(max(CHUNK_BYTES // bytes_needed(1, pixels, layers), 8), 1024)
        chunks = iter([todo[i : i + size] for i in range(0, len(todo), size)])
        waiting: deque[tuple[NDArray[np.int64], list[Future[Any]]]] = deque()

        def submit() -> None:
            rows = next(chunks, None)
            if rows is not None:
                futures = [
                    pool.submit(read_one, source, index.where[i], pixels, layers) for i in rows
                ]
                waiting.append((rows, futures))

        submit()
        while waiting:
            submit()
            rows, futures = waiting.popleft()
            yield rows, [future.result() for future in futures]


def cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _allocate(path: Path, size: int) -> None:
    """A file of this size; a full disk is found now, not in the middle."""
    with path.open("ab") as file:
        if file.seek(0, os.SEEK_END) >= size:
            return
        file.truncate(size)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)


def _sync(files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where consecutive rows begin and end: each run is written at once."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return itertools.pairwise(edges)


def _records(folder: Path) -> NDArray[Any]:
    return np.memmap(folder / "scan.bin", SCAN, "r")


def _reasons(folder: Path) -> dict[int, str]:
    """Why a row is bad; the newest line counts, and only for rows that are bad now."""
    try:
        lines = (folder / "bad.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    status = _records(folder)["status"]
    found: dict[int, str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # a line cut by a kill: its row has no record either, and was redone
            continue
        if status[entry["row"]] in (BAD, UNREADABLE):
            found[entry["row"]] = entry["why"]
    return dict(sorted(found.items()))
