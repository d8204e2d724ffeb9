"""Progress of anything over two seconds: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

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

PATIENCE = 2.0  # seconds before anything is shown
EVERY = 10.0  # seconds between plain lines


def say(line: str) -> None:
    """One line for people, on standard error, so that standard output stays the result's own."""
    print(line, file=sys.stderr, flush=True)


class Track:
    """`with Track("decoding images", 2000) as track: … track(64)`"""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._began = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._id = TaskID(0)

    def __enter__(self) -> Track:
        return self

    def __call__(self, steps: int = 1) -> None:
        """So many more are done."""
        self.done += steps
        now = time.monotonic()
        if now - self._began < PATIENCE:
            return
        # a proxy stands there while another display is drawn: lines go above it, a bar into it
        if not sys.stderr.isatty() or isinstance(sys.stderr, FileProxy):
            if now - self._said >= EVERY or self._said == self._began:
                self._said = now
                rate = self.done / (now - self._began)
                left = (self.total - self.done) / max(rate, 1e-9)
                say(f"{self.what}: {self.done:,} of {self.total:,}, about {left:.0f} s left")
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
            self._id = self._bar.add_task(self.what, total=self.total)
            self._bar.start()
        self._bar.update(self._id, completed=self.done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
