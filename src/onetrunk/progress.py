"""Show the progress of slow work: a bar on a terminal, plain lines elsewhere."""

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
    """Print a message on standard error, as standard output is for results."""
    print(line, file=sys.stderr, flush=True)


class Track:
    """Shows the progress of a number of steps.

        with Track("decoding images", 2000) as track:
            track(64)

    Args:
        description: The work, for example "decoding images".
        total: The number of steps.
    """

    def __init__(self, description: str, total: int) -> None:
        self.description = description
        self.total = total
        self.done = 0
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._id = TaskID(0)

    def __enter__(self) -> Track:
        return self

    def __call__(self, steps: int = 1) -> None:
        """Advance by `steps`."""
        self.done += steps
        now = time.monotonic()
        if now - self._start < PATIENCE:
            return
        # standard error is a proxy while another display is drawn: lines appear above that display,
        # and a second bar would break it
        if not sys.stderr.isatty() or isinstance(sys.stderr, FileProxy):
            if now - self._last_line >= EVERY or self._last_line == self._start:
                self._last_line = now
                rate = self.done / (now - self._start)
                left = (self.total - self.done) / max(rate, 1e-9)
                say(f"{self.description}: {self.done:,} of {self.total:,}, about {left:.0f} s left")
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
