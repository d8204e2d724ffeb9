"""Show the progress of slow work: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import html
import importlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

PATIENCE = 2.0  # seconds before anything is shown
EVERY = 10.0  # seconds between plain lines
REFRESH = 0.2  # seconds between two updates of a notebook
WIDTH = 30  # characters of a notebook's bar


def say(line: str) -> None:
    """Print a message on standard error, as standard output is for results."""
    print(line, file=sys.stderr, flush=True)


class Cell:
    """An output of a Jupyter notebook, which is updated in place."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display").display
        self._handle: Any = None

    @classmethod
    def current(cls) -> Cell | None:
        """Return a new output if a notebook runs the program; IPython is not imported elsewhere."""
        ipython: Any = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        return None if getattr(shell, "kernel", None) is None else cls()

    def show(self, text: str) -> None:
        """Show a text in place of the one before."""
        bundle = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class Track:
    """Shows the progress of a number of steps.

        with Track("decoding images", 2000) as track:
            track(64)

    It also shows that a long step goes on: a thread looks every two seconds, inside `with`.

    Args:
        description: The work, for example "decoding images".
        total: The number of steps; None if it is not known.
    """

    def __init__(self, description: str, total: int | None) -> None:
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(None, self._watch, "onetrunk-progress", daemon=True)
        self.description = description
        self.total = total
        self.done = 0
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._cell = Cell.current()
        self._id = TaskID(0)

    def __enter__(self) -> Track:
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(PATIENCE):
            self(0)

    def __call__(self, steps: int = 1) -> None:
        """Advance by `steps`."""
        with self._lock:
            if not self._ended.is_set():
                self._advance(steps)

    def _advance(self, steps: int) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self._start < PATIENCE:
            return
        if self._cell is not None:
            if now - self._last_line >= REFRESH or self.done == self.total:
                self._last_line = now
                self._cell.show(self._line(now) + self._text_bar())
            return
        # standard error is a proxy while another display is drawn: lines appear above that display,
        # and a second bar would break it
        if not sys.stderr.isatty() or isinstance(sys.stderr, FileProxy):
            if now - self._last_line >= EVERY or self._last_line == self._start:
                self._last_line = now
                say(self._line(now))
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._id = self._bar.add_task(self.description, total=self.total)
            self._bar.start()
        self._bar.update(self._id, completed=self.done)

    def _line(self, now: float) -> str:
        if self.total is None:
            return f"{self.description}: {self.done:,} so far"
        line = f"{self.description}: {self.done:,} of {self.total:,}"
        if not self.done:
            return line
        left = (self.total - self.done) * (now - self._start) / self.done
        return f"{line}, about {left:.0f} s left"

    def _text_bar(self) -> str:
        """Return a bar of characters on a line of its own; empty without a total."""
        if self.total is None:
            return ""
        part = round(WIDTH * min(1.0, self.done / max(1, self.total)))
        return f"\n{'█' * part}{'░' * (WIDTH - part)}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Remove the bar."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()


def tracked(things: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield things, and show how many are done.

    Args:
        things: The things.
        description: What is done with them, as for `Track`.
        total: Their number, if it is known.
    """
    # outside of `with`, whose thread would go on if the caller's exception keeps the generator
    track = Track(description, total)
    try:
        for thing in things:
            yield thing
            track()
    finally:
        track.end()
