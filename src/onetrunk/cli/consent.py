"""Questions to the user: asked on a terminal, answered by --yes, and otherwise answered with no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from onetrunk.data.cache_room import asking


@contextmanager
def asked(yes: bool) -> Iterator[None]:
    """Inside the block, large caches are permitted by --yes or by the user on the terminal."""
    with asking(lambda fact: agrees(f"{fact}. Write them?", yes)):
        yield


def agrees(question: str, yes: bool) -> bool:
    """Return whether the user agrees; without a terminal, whether --yes was given."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(question, err=True)
