"""Questions to the user: asked on a terminal, answered by --yes, and otherwise answered with no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from onetrunk.data.cache_room import asking

_yes: ContextVar[bool] = ContextVar("_yes", default=False)  # whether --yes was given


@contextmanager
def asked(yes: bool) -> Iterator[None]:
    """Inside the block, large caches are permitted by --yes or by the user on the terminal."""
    token = _yes.set(yes)
    try:
        with asking(lambda fact: agrees(f"{fact}. Write them?")):
            yield
    finally:
        _yes.reset(token)


def agrees(question: str) -> bool:
    """Return whether the user agrees; without a terminal, whether --yes was given."""
    if _yes.get():
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(question, err=True)
