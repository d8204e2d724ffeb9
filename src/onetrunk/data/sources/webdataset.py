"""`webdataset:SHARDS`: tars of samples, local or by URL; several patterns joined by `::`.

A pattern may have braces (`train-{0000..0003}.tar`) or wildcards. A sample consists of the files
with the same name up to the first dot: an image, and labels in `.cls`, `.txt` or `.json` (a task's
`column` is "cls", "txt" or a key of the JSON). Shards with train, val or test in their names are
that split. Local shards are indexed by their headers. Shards at a URL are read once for the index,
and samples are then fetched one by one.
"""

from __future__ import annotations

import glob
import http.client
import itertools
import posixpath
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onetrunk.data.files.labels import LABEL_COLUMNS, check_kinds, empty, label_of, read_json
from onetrunk.data.files.paths import IMAGE_ENDINGS, expanded, split_in, split_of, stamp
from onetrunk.data.files.tar import Forward, Member, members
from onetrunk.data.pixels import BadImage, reason_of
from onetrunk.data.sources import Item, Label, NoTargets, SourceOptions
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput, Failed, Missing, shorten

KINDS: tuple[Kind, ...] = ("classify", "embed", "multilabel", "regress")
MAX_SHARDS = 100_000
TRIES = 3  # to read from a URL
TIMEOUT = 30.0  # seconds
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes after which a retry may succeed
Sample = dict[str, Member]  # ending -> member


class WebDataset(NoTargets):
    """Shards in the format of the webdataset package."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name = f"webdataset:{rest}"
        self.notes: list[str] = []
        self._shards = _expand(rest, options.base, self.name)
        self._names = _short(self._shards)
        self._image = None if options.image is None else options.image.lower().lstrip(".")
        self._group = options.group
        self._split = [_split(name) for name in self._names]
        if None in self._split and len(set(self._split)) > 1:
            at = self._split.index(None)
            raise BadInput(
                f"{self.name}: only some shards have their split in their names",
                got=self._names[at],
                try_="put train, val or test into the names of all shards or of none",
            )
        self.tasks = self._read_tasks(options.tasks)

    def items(self) -> Iterator[Item]:
        """Yield every sample, shard by shard."""
        for at, shard in enumerate(self._shards):
            remote, shard_stamp = _remote(shard), ""
            if remote:
                read_range(shard, 0, 1)  # fails now if the server cannot send ranges
            else:
                shard_stamp = stamp(shard)
            for key, sample in self._samples(at):
                place = f"{self._names[at]}: {key}"
                image = self._image_of(sample, place)
                document = self._document(sample, place)
                labels: dict[str, Label] = {}
                for task in self.tasks:
                    column = str(task.column)
                    cells = [self._cell(sample, document, c, place) for c in column.split(",")]
                    labels[task.name] = label_of(task, cells, f"{place}, {column}")
                group = document.get(self._group) if self._group else None
                check = f"{image.check:08x}"
                yield Item(
                    f"{self._names[at]}/{key}",
                    f"{at}:{image.offset}:{image.size}:{check}",
                    f"{image.size}-{check}" if remote else f"{shard_stamp}-{image.offset}",
                    self._split[at],
                    None if empty(group) else str(group),
                    labels,
                )

    def image(self, where: str) -> bytes:
        """Return an encoded image, read from its place in the shard."""
        at, offset, size, check = where.split(":")
        if size == "0":
            raise BadImage("no image in this sample")
        shard = self._shards[int(at)]
        if _remote(shard):
            data = read_range(shard, int(offset), int(size))
            if f"{zlib.crc32(data):08x}" != check:
                raise Failed(f"{shard}: has changed since it was indexed", try_="start again")
            return data
        try:
            with open(shard, "rb") as file:
                file.seek(int(offset))
                return file.read(int(size))
        except OSError as error:
            raise BadImage(reason_of(error)) from None

    def _samples(self, at: int) -> Iterator[tuple[str, Sample]]:
        """Yield the neighbouring members of each sample; raise BadInput for a repeated key."""
        keys: set[str] = set()
        for key, group in itertools.groupby(self._members(at), key=lambda member: member.key):
            sample: Sample = {}
            for member in group:
                if member.ending in sample or key in keys:
                    raise BadInput(
                        f"{self._names[at]}: sample {key} occurs twice", got=member.ending
                    )
                sample[member.ending] = member
            keys.add(key)
            yield key, sample

    def _members(self, at: int) -> Iterator[Member]:
        shard, name = self._shards[at], self._names[at]
        if _remote(shard):
            with open_url(shard) as stream:
                yield from members(Forward(stream), name, length=None, check=True)
            return
        try:
            with open(shard, "rb") as file:
                length = Path(shard).stat().st_size
                yield from members(file, name, length=length, check=False)
        except OSError as error:
            raise BadInput(f"{name}: cannot be read", got=reason_of(error)) from None

    def _image_of(self, sample: Sample, place: str) -> Member:
        endings = [e for e in sample if f".{e.rpartition('.')[2]}" in IMAGE_ENDINGS]
        if self._image is not None:
            endings = [e for e in sample if e == self._image]
        if len(endings) > 1:
            plain = [ending for ending in endings if "." not in ending]
            endings = plain if len(plain) == 1 else endings
        if len(endings) > 1:
            raise BadInput(
                f"{place}: expected one image", got=shorten(endings), try_=f'image = "{endings[0]}"'
            )
        return sample[endings[0]] if endings else Member("", "", 0, 0, None, 0)

    @staticmethod
    def _document(sample: Sample, place: str) -> dict[str, Any]:
        if "json" not in sample:
            return {}
        document = read_json(sample["json"].data or b"", f"{place}.json")
        if not isinstance(document, dict):
            raise BadInput(f"{place}.json: expected an object", got=type(document).__name__)
        return document

    @staticmethod
    def _cell(sample: Sample, document: dict[str, Any], column: str, place: str) -> Any:
        column = column.strip()
        if column not in ("cls", "txt"):
            return document.get(column)
        if column not in sample:
            return None
        try:
            return (sample[column].data or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"{place}.{column}: not UTF-8") from None

    def _read_tasks(self, requested: Sequence[Task] | None) -> tuple[Task, ...]:
        key, sample = next(self._samples(0), ("", {}))
        if not sample:
            raise BadInput(f"{self._names[0]}: no samples", try_="write a shard with samples")
        document = self._document(sample, f"{self._names[0]}: {key}")
        available = [c for c in ("cls", "txt") if c in sample] + list(document)
        usual = [c for c in ("cls", *LABEL_COLUMNS, "txt") if c in available]
        if requested is None and not usual:
            raise BadInput(
                f"{self.name}: expected a .cls or .txt, or {', '.join(LABEL_COLUMNS)} in the .json",
                available=available,
                try_='tasks = { NAME = { kind = "classify", column = "KEY" } }',
            )
        requested = (Task("classify", "classify"),) if requested is None else requested
        check_kinds(self.name, requested, KINDS, "folder: or table: for dense targets")
        tasks = []
        for task in requested:
            column = task.column or (task.name if task.name in available else None)
            column = column or (usual[0] if usual else None)
            columns = [] if column is None else [part.strip() for part in column.split(",")]
            if column is None or not set(columns) & set(available):
                raise BadInput(
                    f"{self.name}: task {task.name}: unknown ending or key of the JSON",
                    got=column,
                    available=available,
                    try_=f'tasks = {{ {task.name} = {{ kind = "{task.kind}", column = "KEY" }} }}',
                )
            outputs = max(task.outputs, len(columns)) if task.kind == "regress" else task.outputs
            tasks.append(replace(task, column=column, outputs=outputs))
        return tuple(tasks)


SOURCE = WebDataset


def _remote(shard: str) -> bool:
    return shard.startswith(("http://", "https://"))


def _expand(rest: str, base: Path, name: str) -> list[str]:
    """Return all shards of all patterns, in order."""
    shards: list[str] = []
    for pattern in rest.split("::"):
        if not pattern or re.match(r"pipe:", pattern, re.I):
            raise BadInput(
                f"{name}: expected files or URLs; commands are not run", try_="webdataset:*.tar"
            )
        if "://" in pattern and not _remote(pattern):
            raise BadInput(
                f"{name}: expected files, http:// or https://",
                got=pattern.partition("://")[0],
                try_="download the shards, or use their https address",
            )
        for one in _braces(pattern, name):
            if _remote(one):
                shards.append(one)
                continue
            path = str(Path(base, expanded(one)))
            files = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
            if not files or not all(Path(shard).is_file() for shard in files):
                folder = Path(path).parent
                raise BadInput(
                    f"{name}: no such shard",
                    got=one,
                    available=sorted(p.name for p in folder.glob("*.tar*")),
                    try_="check the pattern; relative paths start at the recipe's folder",
                )
            shards += files
    if len(set(shards)) < len(shards):
        raise BadInput(f"{name}: a shard occurs twice", got=shorten(sorted(shards), 3))
    return shards


def _braces(pattern: str, name: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise Missing("braceexpand", "webdataset", f"{name}: a pattern with braces") from None
    count = 1  # counted first, because braceexpand makes a list of them
    for group in re.findall(r"\{([^{}]*)\}", pattern):
        ends = re.fullmatch(r"(\d+)\.\.(\d+)(?:\.\.\d+)?", group)
        count *= abs(int(ends[2]) - int(ends[1])) + 1 if ends else group.count(",") + 1
    if count > MAX_SHARDS:
        raise BadInput(f"{name}: expected at most {MAX_SHARDS} shards", got=pattern)
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise BadInput(f"{name}: unbalanced braces", got=str(error)) from None


def _short(shards: Sequence[str]) -> list[str]:
    """Return the names of shards without the folders that all have in common."""
    plain = [
        shard.partition("://")[2].partition("?")[0]
        if _remote(shard)
        else Path(shard).absolute().as_posix()
        for shard in shards
    ]
    folders = [posixpath.dirname(path) for path in plain]
    same = len({path.startswith("/") for path in plain}) == 1
    folder = posixpath.commonpath(folders) if same else ""
    return [path[len(folder) :].lstrip("/") for path in plain]


def _split(name: str) -> str | None:
    *folders, base = name.split("/")
    inside = [split for folder in reversed(folders) if (split := split_of(folder))]
    return split_in(base) or (inside[0] if inside else None)


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """Open a URL as a stream; raise Failed if the server does not send it."""
    request = urllib.request.Request(url, headers={"User-Agent": "onetrunk", **(headers or {})})
    got = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(0.5 * 2**attempt)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            got = f"{error.code} {error.reason}"
            error.close()
            if error.code not in TEMPORARY:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            got = str(getattr(error, "reason", error)) or type(error).__name__
    raise Failed(f"{url}: cannot be read", got=got, try_="check the address and the network")


def read_range(url: str, offset: int, size: int) -> bytes:
    """Read `size` bytes of a URL from `offset` on."""
    if size == 0:
        return b""
    headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
    for attempt in range(TRIES):
        with open_url(url, headers) as response:
            got = response.headers.get("Content-Range", "")
            if response.status != 206 or not got.startswith(f"bytes {offset}-"):
                raise BadInput(
                    f"{url}: the server does not send ranges of bytes, so single samples cannot be "
                    "read from it",
                    got=f"status {response.status}",
                    try_="download the shards and use webdataset:FOLDER/*.tar",
                )
            try:
                data: bytes = response.read(size + 1)
            except (OSError, http.client.HTTPException):
                data = b""
        if len(data) == size:
            return data
        time.sleep(0.5 * 2**attempt)
    raise Failed(f"{url}: bytes {offset} to {offset + size} were incomplete {TRIES} times")
