"""Decode once, then memory-mapped.

One folder holds what was decoded of one source at one stored size and fit, keyed by the content of
the source: `scan.bin`, a record an image (readable? how large? digest, thumbnail, channel sums),
`images.bin`, the pixels, and `target.TASK.bin`, the dense targets. Pixels are written and synced
before their records are, so a build that is killed goes on where its records end. A lock, freed by
its process's death, lets one process build; the others wait and then share the pages.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.index import Index
from onetrunk.data.pixels import Pixels
from onetrunk.data.sources import Source
from onetrunk.data.stored_images import (
    SCAN,
    TODO,
    UNREADABLE,
    Frames,
    Layer,
    Part,
    gather,
    layers_of,
    read_one,
    read_reasons,
    read_records,
)
from onetrunk.errors import Failed
from onetrunk.progress import Track, say
from onetrunk.store.atomic import write_atomic

FORMAT = 1  # part of the key: a new layout never meets an old folder
CHUNK_BYTES = 32 * 2**20  # decoded between two syncs; two chunks are in memory at once
SPARE = 512 * 2**20  # bytes of the disk that the cache never takes
OURS = re.compile(r"[0-9a-f]{24}-\d+x\d+(-looked)?")  # the names of our folders, and of no others


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
                _build(_Job(folder, source, index, pixels, layers, name, keep))
    frames = Frames(folder if keep else None, source, index.where, pixels, layers)
    return Decoded(folder, read_records(folder), read_reasons(folder), frames)


def purge(home: Path | None = None) -> tuple[Path, int]:
    """Empty the cache; its place and the bytes that were freed.

    What another process is decoding into stays, and so does whatever is not ours: the user may have
    named a folder that holds other things.
    """
    home = home or cache_home()
    freed = 0
    for folder in sorted(home.iterdir() if home.is_dir() else ()):
        if not OURS.fullmatch(folder.name.removesuffix(".lock")):
            continue
        lock = FileLock(f"{folder.with_name(folder.name.removesuffix('.lock'))}.lock")
        try:
            with lock.acquire(timeout=0):
                if folder.is_dir():
                    freed += sum(f.stat().st_size for f in folder.iterdir())
                    shutil.rmtree(folder)
                with suppress(OSError):  # Windows: an open file stays
                    Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            if folder.suffix != ".lock":
                say(f"{folder} stays: another process decodes into it; try: purge again later")
        except OSError as error:
            raise Failed(
                f"{folder} cannot be removed ({error.strerror or error}); try: remove it by hand"
            ) from None
    return home, freed


def bytes_needed(count: int, pixels: Pixels, layers: Sequence[Layer]) -> int:
    """What the cache of so many images takes on the disk."""
    height, width = pixels.stored
    each = 3 * height * width + sum(layer.bytes(pixels.stored) for layer in layers)
    return count * (each + SCAN.itemsize)


def _key(index: Index, pixels: Pixels, layers: Sequence[Layer]) -> str:
    """What decides the stored bytes, and nothing else: neither normalization nor the crop's size."""
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
    # one for each user: what others can write to is not ours to trust
    user = os.getuid() if hasattr(os, "getuid") else "own"
    fallback = Path(tempfile.gettempdir()) / f"onetrunk-cache-{user}"
    say(f"{name}: the cache {home} cannot be written, {fallback} is used; try: ONETRUNK_CACHE=…")
    try:
        fallback.mkdir(mode=0o700, exist_ok=True)
        owner = fallback.stat().st_uid
    except OSError as error:
        raise Failed(f"{name}: no cache: {error}; try: ONETRUNK_CACHE=/a/folder/of/yours") from None
    if user not in ("own", owner):
        raise Failed(f"{name}: {fallback} is not yours; try: ONETRUNK_CACHE=/a/folder/of/yours")
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
        "try: ONETRUNK_CACHE=/a/larger/disk"
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


@dataclass
class _Job:
    """What is decoded, and where to; `keep`: pixels too, not only records."""

    folder: Path
    source: Source
    index: Index
    pixels: Pixels
    layers: Sequence[Layer]
    name: str
    keep: bool


def _build(job: _Job) -> None:
    """Decode what has no record yet, chunk by chunk: pixels, sync, records."""
    try:
        _decode_into(job)
        if not (read_records(job.folder)["status"] == UNREADABLE).any():
            document = {"name": job.name, "count": len(job.index), "pixels": job.pixels.to_json()}
            write_atomic(job.folder / "done.json", json.dumps(document) + "\n")
    except OSError as error:
        raise Failed(
            f"{job.name}: the cache {job.folder} cannot be written ({error.strerror or error}); "
            "what is there is kept; try: free some space or set ONETRUNK_CACHE, then run it again"
        ) from None


def _decode_into(job: _Job) -> None:
    folder, stored, count = job.folder, job.pixels.stored, len(job.index)
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as open_files:  # closing writes too: a full disk may show there
        _allocate(folder / "scan.bin", count * SCAN.itemsize)
        if job.keep:
            sizes = {"images": 3 * stored[0] * stored[1]}
            sizes |= {f"target.{x.task.name}": x.bytes(stored) for x in job.layers}
            for file, size in sizes.items():
                _allocate(folder / f"{file}.bin", count * size)
                files[file] = open_files.enter_context((folder / f"{file}.bin").open("r+b"))
        files["scan"] = open_files.enter_context((folder / "scan.bin").open("r+b"))
        scan, known = read_records(folder), read_reasons(folder)
        todo = np.flatnonzero((scan["status"] == TODO) | (scan["status"] == UNREADABLE))
        with (
            Track(f"{job.name}: decoding", count) as track,
            (folder / "bad.jsonl").open("a") as bad,
        ):
            track(count - len(todo))
            for rows, parts in _decoded(job, todo):
                for mine, part in zip(np.array_split(rows, len(parts)), parts, strict=True):
                    for i, why in part.reasons.items():
                        if why != known.get(int(mine[i])):
                            bad.write(json.dumps({"row": int(mine[i]), "why": why}) + "\n")
                    for name, array in part.arrays.items() if job.keep else ():
                        _write(files[name], mine, array)
                bad.flush()
                _sync(f for name, f in files.items() if name != "scan")
                scan = np.concatenate([part.scan for part in parts])
                _write(files["scan"], rows, scan)
                _sync([files["scan"]])
                track(len(rows))


def _decoded(job: _Job, todo: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], list[Part]]]:
    """Chunks of decoded images, in order, a few ahead of whoever writes them.

    Threads: pillow's decoders and resizing release the interpreter's lock.
    """
    threads = cpus()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # our own limit refuses what pillow would only warn of; odd metadata changes no pixel
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        size = min(max(CHUNK_BYTES // bytes_needed(1, job.pixels, job.layers), 8), 1024)
        chunks = iter([todo[i : i + size] for i in range(0, len(todo), size)])
        waiting: deque[tuple[NDArray[np.int64], list[Future[Part]]]] = deque()

        def look(rows: NDArray[np.int64]) -> Part:
            where = (job.index.where[i] for i in rows)
            return gather([read_one(job.source, w, job.pixels, job.layers) for w in where])

        def submit() -> None:
            rows = next(chunks, None)
            if rows is not None:
                # a part for each thread: handing over single images costs as much as a decoding
                parts = np.array_split(rows, threads)
                waiting.append((rows, [pool.submit(look, part) for part in parts]))

        submit()
        while waiting:
            submit()
            rows, parts = waiting.popleft()
            yield rows, [part.result() for part in parts]


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
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    file.truncate(0)  # else the next run would take the file for allocated
                    raise


def _sync(files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _write(file: IO[bytes], rows: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Each row's values to its place in the file: rows that follow each other at once."""
    for first, last in _runs(rows):
        file.seek(int(rows[first]) * values[0].nbytes)
        file.write(values[first:last].data)


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where consecutive rows begin and end: each run is written at once."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return itertools.pairwise(edges)
