"""`onetrunk data --cache` and `--purge`: list and delete decoded images."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from onetrunk.cli.consent import agrees
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.data.cache import cache_home, purge
from onetrunk.data.cache_entries import Entry, Origin, entries
from onetrunk.data.cache_room import DEFAULT_LIMIT, LIMIT, set_limit
from onetrunk.display import scaled
from onetrunk.errors import BadInput, printable

AGES = {"h": 3600, "d": 86_400, "w": 7 * 86_400}  # seconds


def list_cache(as_json: bool) -> None:
    """List the folders of the cache."""
    home, limit = cache_home(), set_limit()
    found = entries(home)
    total = sum(entry.bytes for entry in found)
    most = DEFAULT_LIMIT if limit is None else limit
    if as_json:
        listed = [entry.to_json() for entry in found]
        print_json({"cache": str(home), "bytes": total, "limit": most, "entries": listed})
        return
    if found:
        _show(found)
    print(f"{scaled(total, 'B')} in {home}; limit: {scaled(most, 'B')} ({LIMIT})")
    if found:
        suggest("onetrunk data SOURCE --purge", "onetrunk data --purge --older-than 30d")


def purge_cache(
    source: str | None, older_than: str | None, everything: bool, dry: bool, as_json: bool
) -> None:
    """Delete the decoded images of a source, those unused for an age, or all of them."""
    if everything == (source is not None or older_than is not None):
        raise BadInput(
            "--purge expects what to delete: a SOURCE, --older-than AGE or both; or --all",
            got="all of them" if everything else "neither",
            try_="onetrunk data --cache to list the cache",
        )
    home = cache_home()
    chosen = entries(home)
    if source is not None:
        origin = Origin.of(source, Path())
        chosen = [e for e in chosen if e.origin is not None and origin.matches(e.origin)]
        if not chosen:
            available = sorted({str(e.origin) for e in entries(home) if e.origin is not None})
            raise BadInput(
                "the cache has no images of this source", got=source, available=available
            )
    if older_than is not None:
        oldest = time.time() - age(older_than)
        chosen = [entry for entry in chosen if entry.used < oldest]
    total = sum(entry.bytes for entry in chosen)
    if not as_json and chosen:
        _show(chosen)
    size = scaled(total, "B")
    if chosen and not dry and not agrees(f"Delete {size} from {home}?"):
        raise BadInput(f"nothing was deleted: {size} in {home}", try_="--yes, or --dry-run")
    freed = 0 if dry else purge(home, chosen)[1]
    if as_json:
        listed = [entry.to_json() for entry in chosen if dry or not entry.folder.exists()]
        print_json({"cache": str(home), "bytes": total if dry else freed, "entries": listed})
    elif dry:
        print(f"would delete {size} from {home}; nothing was deleted")
    else:
        print(f"deleted {scaled(freed, 'B')} from {home}")


def age(text: str) -> float:
    """Return the seconds in an age such as `30d`, `12h` or `2w`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip().lower())
    if match is None:
        raise BadInput(
            "--older-than expects hours, days or weeks", got=text, try_="--older-than 30d"
        )
    return float(match[1]) * AGES[match[2]]


def _show(found: Sequence[Entry]) -> None:
    table = Table(title="decoded images", title_justify="left")
    table.add_column("source", overflow="fold")
    for column in ("images", "pixels", "size", "last use"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in found:
        table.add_row(
            escape(printable(str(entry.origin or "unknown"))),
            "" if entry.images is None else f"{entry.images:,}",
            entry.size,
            scaled(entry.bytes, "B"),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
        )
    console().print(table)
