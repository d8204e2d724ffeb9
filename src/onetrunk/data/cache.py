"""The cache of decoded images: images are decoded once, then memory-mapped.

A folder of the cache holds the images of one source at one stored size and fit, keyed by the
content of the source: `records.bin`, a record per image (status, size, digest, thumbnail, channel
statistics), `images.bin`, the pixels, and `target.TASK.bin`, the dense targets. Pixels are written
and synced before their records, so a build that was killed continues where its records end. A file
lock, which is released when its process ends, lets one process build while others wait.
`cache_entries.py` lists and removes the folders, and `cache_room.py` limits their size.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from onetrunk.data.cache_entries import (
    DONE,
    Entry,
    InUse,
    Origin,
    describe,
    entries,
    lock_path,
    remove,
    touch,
)
from onetrunk.data.cache_room import Plan, check_large, make_room, nearest, obstacle
from onetrunk.data.index import Index
from onetrunk.data.pixels import Pixels
from onetrunk.data.sources import Source
from onetrunk.data.stored_images import (
    RECORD,
    TODO,
    UNREADABLE,
    Frames,
    Layer,
    Part,
    layers_of,
    read_image,
    read_reasons,
    read_records,
    summarize,
)
from onetrunk.errors import Failed
from onetrunk.progress import Track, say
from onetrunk.store.atomic import write_atomic

FORMAT = 3  # part of the key, so that folders of another layout are not used
CHUNK_BYTES = 32 * 2**20  # decoded between two syncs; two chunks are in memory at once
OTHER_FOLDER = "ONETRUNK_CACHE=/a/folder/of/yours"
REPORT = 0.5  # seconds between two reports of progress within a chunk
PATIENCE = 0.5  # seconds of waiting for another process before a line says so


def cache_home() -> Path:
    """Return the folder of the cache: $ONETRUNK_CACHE, or one in the user's cache folder."""
    if chosen := os.environ.get("ONETRUNK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onetrunk"


@dataclass
class Decoded:
    """A decoded source.

    Attributes:
        records: A RECORD for each image.
        reasons: Why an image cannot be read, by its row.
        frames: Reads the pixels.
    """

    folder: Path
    records: NDArray[Any]
    reasons: dict[int, str]
    frames: Frames


def decode_all(
    source: Source,
    index: Index,
    pixels: Pixels,
    *,
    name: str,
    origin: Origin | None = None,
    home: Path | None = None,
    keep: bool = True,
) -> Decoded:
    """Decode all images of a source, or take them from the cache.

    Args:
        name: The name of the domain, for messages.
        origin: Where the images come from, for lists of the cache.
        home: The folder of the cache; None for the default one.
        keep: Whether to store the pixels; if not, every read decodes its images again.
    """
    layers = layers_of(index.tasks)
    plan = plan_cache(index, pixels, name=name, home=home)
    if keep and not plan.finished:
        if reason := obstacle(plan):
            say(reason)
            keep = False
        else:
            check_large([plan])
            make_room(plan)
    folder = plan.folder if keep else plan.folder.with_name(f"{plan.folder.name}-records")
    _make(folder.parent, home or cache_home(), name)
    origin = Origin(f"python:{type(source).__name__}") if origin is None else origin
    used = _opened(_Job(folder, source, index, pixels, layers, name, keep, origin))
    frames = Frames(folder if keep else None, source, index.where, pixels, layers, used)
    return Decoded(folder, read_records(folder), read_reasons(folder), frames)


def _opened(job: _Job) -> InUse | None:
    """Decode the images that are missing in a folder, and mark it as in use."""
    try:
        with _locked(job.folder, job.name):
            job.folder.mkdir(exist_ok=True)
            used = InUse(job.folder)
            touch(job.folder)
            if not _finished(job.folder):
                _build(job)
            return used
    except OSError as error:
        if isinstance(error, PermissionError) and _finished(job.folder):
            return None  # of another user, to be read only
        raise _unwritable(job.name, job.folder, error) from None


def plan_cache(index: Index, pixels: Pixels, *, name: str, home: Path | None = None) -> Plan:
    """Return the folder of the cache for the images of an index, without writing anything."""
    layers = layers_of(index.tasks)
    folder = _place(home or cache_home()) / _key(index, pixels, layers)
    return Plan(name, folder, bytes_needed(len(index), pixels, layers), _finished(folder))


def purge(home: Path | None = None, chosen: Sequence[Entry] | None = None) -> tuple[Path, int]:
    """Remove folders of the cache; return its folder and the bytes that were freed.

    Folders that a process uses are kept, and so are files that are not part of the cache: the user
    may have chosen a folder with other files.

    Args:
        home: The folder of the cache; None for the default one.
        chosen: The folders to remove; None for all.
    """
    home = home or cache_home()
    removed = remove(entries(home) if chosen is None else chosen)
    return home, sum(entry.bytes for entry in removed)


def bytes_needed(count: int, pixels: Pixels, layers: Sequence[Layer]) -> int:
    """Return the bytes that the cache of `count` images takes on the disk."""
    height, width = pixels.stored
    each = 3 * height * width + sum(layer.bytes(pixels.stored) for layer in layers)
    return count * (each + RECORD.itemsize)


def _key(index: Index, pixels: Pixels, layers: Sequence[Layer]) -> str:
    """Return the name of a folder: a hash of everything that the stored bytes depend on."""
    document = [FORMAT, index.fingerprint, pixels.stored, pixels.fit, pixels.fill]
    document += [[layer.task.name, layer.task.kind, layer.task.classes] for layer in layers]
    if index.code:
        document.append(index.code)
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()[:24]
    return f"{digest}-{pixels.stored[0]}x{pixels.stored[1]}"


def _place(home: Path) -> Path:
    """Return the folder of the cache if it can be written, else a temporary one of this user."""
    parent = nearest(home)
    return home if parent.is_dir() and os.access(parent, os.W_OK) else _fallback()


def _fallback() -> Path:
    # one per user, because a folder that others can write to cannot be trusted
    return Path(tempfile.gettempdir()) / f"onetrunk-cache-{_user()}"


def _user() -> int | str:
    return os.getuid() if hasattr(os, "getuid") else "own"


def _make(home: Path, wanted: Path, name: str) -> None:
    """Create the folder of the cache; say if it is not the one that was wanted."""
    if home == wanted:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(name, home, error) from None
        return
    say(f"{name}: cannot write to the cache {wanted}, using {home}; try: ONETRUNK_CACHE=…")
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        owner = home.stat().st_uid
    except OSError as error:
        raise Failed(
            f"{name}: no folder for the cache", got=str(error), try_=OTHER_FOLDER
        ) from None
    if _user() not in ("own", owner):
        raise Failed(f"{name}: the folder {home} belongs to another user", try_=OTHER_FOLDER)


def _finished(folder: Path) -> bool:
    return (folder / DONE).exists()


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Lock a folder for the one process that builds in it; others print a line and wait."""
    lock = FileLock(lock_path(folder))
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        say(f"{name}: another process decodes the same images; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass
class _Job:
    """A source to decode into a folder, with pixels (`keep`) or only records."""

    folder: Path
    source: Source
    index: Index
    pixels: Pixels
    layers: Sequence[Layer]
    name: str
    keep: bool
    origin: Origin


def _build(job: _Job) -> None:
    """Decode the images that have no record yet, chunk by chunk: pixels, sync, records."""
    try:
        size = {"images": len(job.index), "pixels": job.pixels.to_json()}
        describe(job.folder, job.origin, {"name": job.name, **size})
        _decode_into(job)
        if not (read_records(job.folder)["status"] == UNREADABLE).any():
            document = {"name": job.name, "count": len(job.index), "pixels": job.pixels.to_json()}
            write_atomic(job.folder / DONE, json.dumps(document) + "\n")
    except OSError as error:
        raise _unwritable(job.name, job.folder, error) from None


def _unwritable(name: str, folder: Path, error: OSError) -> Failed:
    return Failed(
        f"{name}: cannot write to the cache {folder}; finished files are kept",
        got=error.strerror or str(error),
        try_="free some space or set ONETRUNK_CACHE, then run it again",
    )


def _decode_into(job: _Job) -> None:
    folder, stored, count = job.folder, job.pixels.stored, len(job.index)
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as open_files:  # closing writes too, and fails on a full disk
        _allocate(folder / "records.bin", count * RECORD.itemsize)
        if job.keep:
            sizes = {"images": 3 * stored[0] * stored[1]}
            sizes |= {f"target.{x.task.name}": x.bytes(stored) for x in job.layers}
            for file, size in sizes.items():
                _allocate(folder / f"{file}.bin", count * size)
                files[file] = open_files.enter_context((folder / f"{file}.bin").open("r+b"))
        files["records"] = open_files.enter_context((folder / "records.bin").open("r+b"))
        records, known = read_records(folder), read_reasons(folder)
        todo = np.flatnonzero((records["status"] == TODO) | (records["status"] == UNREADABLE))
        with (
            Track(f"{job.name}: decoding", count) as track,
            (folder / "bad.jsonl").open("a") as bad,
        ):
            track(count - len(todo))
            for rows, parts in _decoded(job, todo, track):
                for mine, part in zip(np.array_split(rows, len(parts)), parts, strict=True):
                    for i, reason in part.reasons.items():
                        if reason != known.get(int(mine[i])):
                            bad.write(json.dumps({"row": int(mine[i]), "reason": reason}) + "\n")
                    for name, array in part.arrays.items() if job.keep else ():
                        _write(files[name], mine, array)
                bad.flush()
                _sync(f for name, f in files.items() if name != "records")
                records = np.concatenate([part.records for part in parts])
                _write(files["records"], rows, records)
                _sync([files["records"]])


def _decoded(
    job: _Job, todo: NDArray[np.int64], track: Track
) -> Iterator[tuple[NDArray[np.int64], list[Part]]]:
    """Yield chunks of decoded images in order, decoding ahead of the writer.

    In threads: pillow's decoders and resizing release the interpreter's lock.
    """
    done: deque[None] = deque()  # one for each decoded image; threads append to it
    threads = cpus()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # `decode` has its own limit of pixels, and odd metadata does not change the pixels
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        size = min(max(CHUNK_BYTES // bytes_needed(1, job.pixels, job.layers), 8), 1024)
        chunks = iter([todo[i : i + size] for i in range(0, len(todo), size)])
        waiting: deque[tuple[NDArray[np.int64], list[Future[Part]]]] = deque()

        def decode(rows: NDArray[np.int64]) -> Part:
            images = []
            for i in rows:
                where = job.index.where[i]
                images.append(read_image(job.source, where, job.pixels, job.layers))
                done.append(None)
            return summarize(images)

        def submit() -> None:
            rows = next(chunks, None)
            if rows is not None:
                # a part per thread: passing single images costs as much as decoding them
                parts = np.array_split(rows, threads)
                waiting.append((rows, [pool.submit(decode, part) for part in parts]))

        submit()
        while waiting:
            submit()
            rows, parts = waiting.popleft()
            while wait(parts, REPORT, FIRST_EXCEPTION).not_done:
                track(_emptied(done))
            track(_emptied(done))
            try:
                read = [part.result() for part in parts]
            except Failed as error:
                raise error.within(job.name) from error.__cause__
            yield rows, read


def _emptied(done: deque[None]) -> int:
    """Return the length of a queue, and remove that many."""
    count = len(done)
    for _ in range(count):
        done.popleft()
    return count


def cpus() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _allocate(path: Path, size: int) -> None:
    """Give a file its final size, so that a full disk is detected before decoding."""
    with path.open("ab") as file:
        if file.seek(0, os.SEEK_END) >= size:
            return
        file.truncate(size)
        if hasattr(os, "posix_fallocate") and size:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    file.truncate(0)  # otherwise the next run finds the final size
                    raise


def _sync(files: Iterable[IO[bytes]]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _write(file: IO[bytes], rows: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Write each row's values to its place in the file, consecutive rows together."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(rows)]):
        file.seek(int(rows[first]) * values[0].nbytes)
        file.write(values[first:last].data)
