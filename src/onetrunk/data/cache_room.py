"""How much of the disk the cache may take: its limit, and caches that a user has to agree to.

The cache as a whole takes at most `ONETRUNK_CACHE_LIMIT` (default: 50 GB); the folders that were
not used for longest are removed first. Without that setting, new images that would take more than
10 GB or a tenth of the free disk need permission: the command line asks, or takes `--yes`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from onetrunk.data.cache_entries import bytes_in, entries, evict, evictable
from onetrunk.errors import BadInput
from onetrunk.progress import say

LIMIT = "ONETRUNK_CACHE_LIMIT"
DEFAULT_LIMIT = 50 * 10**9  # bytes
LARGE, LARGE_SHARE = 10 * 10**9, 0.1  # bytes, and of the free disk: more needs permission
SPARE = 512 * 2**20  # bytes of the disk that are kept free
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

Ask = Callable[[str], bool]  # takes a question, and returns whether the user agrees


def _refuse(_: str) -> bool:
    return False


_ask: ContextVar[Ask] = ContextVar("_ask", default=_refuse)


@contextmanager
def asking(ask: Ask) -> Iterator[None]:
    """Inside the block, `ask` decides on large caches; by default they are refused."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


@dataclass(frozen=True)
class Plan:
    """The folder of the cache for some images, which may not exist yet.

    Attributes:
        need: Its bytes when it is complete.
        finished: Whether it is complete.
    """

    name: str
    folder: Path
    need: int
    finished: bool

    @property
    def missing(self) -> int:
        """The bytes that are still to be written."""
        return 0 if self.finished else max(0, self.need - bytes_in(self.folder))


def set_limit() -> int | None:
    """Return the bytes in $ONETRUNK_CACHE_LIMIT; None if it is not set."""
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.upper())
    if match is None or match[2] not in UNITS:
        raise BadInput("expected a size", place=LIMIT, got=text, try_=f"{LIMIT}=50GB")
    return int(float(match[1]) * UNITS[match[2]])


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk of a folder that may not exist yet."""
    return shutil.disk_usage(nearest(path)).free


def nearest(path: Path) -> Path:
    """Return the path itself, or the nearest of its parents that exists."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def obstacle(plan: Plan) -> str:
    """Return why the images cannot be cached, by the free disk or the limit; "" if they can."""
    home, size = plan.folder.parent, f"{plan.need / 1e9:.1f} GB"
    free, limit = free_bytes(home) - SPARE, set_limit()
    found = entries(home)
    spare = sum(entry.bytes for entry in evictable(found, plan.folder))
    instead = "images are decoded at every read instead, which is slower"
    if plan.missing > free + spare:
        return (
            f"{plan.name}: the cache would take {size}, and {max(free, 0) / 1e9:.1f} GB are "
            f"free in {home}: {instead}; try: ONETRUNK_CACHE=/a/larger/disk"
        )
    others = sum(entry.bytes for entry in found if entry.folder != plan.folder)
    if limit is not None and plan.need + others - spare > limit:
        return (
            f"{plan.name}: the cache would take {size}, and {LIMIT} is "
            f"{os.environ[LIMIT]}: {instead}; try: {LIMIT}={_above(plan.need + others - spare)}"
        )
    return ""


def large(plans: Sequence[Plan]) -> str:
    """Return what caches would take, if so much needs a permission; otherwise "".

    A limit that the user has set is a permission.
    """
    plans = [plan for plan in plans if plan.missing]
    if not plans or set_limit() is not None:
        return ""
    need, home = sum(plan.missing for plan in plans), plans[0].folder.parent
    free = free_bytes(home)
    if need <= min(LARGE, LARGE_SHARE * free):
        return ""
    return (
        f"{', '.join(plan.name for plan in plans)}: the decoded images take {need / 1e9:.1f} GB "
        f"of the {free / 1e9:.1f} GB that are free in {home}"
    )


def check_large(plans: Sequence[Plan]) -> None:
    """Raise BadInput for caches that are too large to be written without permission."""
    fact = large(plans)
    if fact and not _ask.get()(fact):
        need = sum(plan.missing for plan in plans)
        raise BadInput(
            f"{fact}; more than 10 GB or a tenth of the free disk is only written with permission",
            try_=f"--yes, or {LIMIT}={_above(need)}; a smaller size, or less margin; or "
            "ONETRUNK_CACHE=/another/disk",
        )


def make_room(plan: Plan) -> None:
    """Remove the folders that were unused for longest, down to the limit and the free disk."""
    home = plan.folder.parent
    limit = set_limit()
    others = sum(entry.bytes for entry in entries(home) if entry.folder != plan.folder)
    over = others + plan.need - (DEFAULT_LIMIT if limit is None else limit)
    short = plan.missing - (free_bytes(home) - SPARE)
    if (needed := max(over, short)) > 0:
        evict(home, needed, plan.folder)
    if plan.missing > 2**30:
        say(f"{plan.name}: the cache takes {plan.need / 1e9:.1f} GB in {home}")


def _above(count: int) -> str:
    """Return a size in whole gigabytes that is at least this one."""
    return f"{-(-count // 10**9)}GB"
