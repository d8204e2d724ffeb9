"""Ctrl-C and SIGTERM: training finishes its step, saves a checkpoint, and stops."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from onetrunk.errors import Failed
from onetrunk.progress import say


class Stopped(Failed):
    """Training was stopped by a signal; `try_` is the command that resumes it. Exit code 1."""


def stopped(where: str, run: Path) -> Stopped:
    """Return the error to raise; `where` is for example "at step 3 of 40"."""
    resume = f"onetrunk train {shlex.quote(str(run / 'recipe.toml'))} --resume"
    return Stopped(f"stopped {where}; the progress is saved in {run}", try_=resume)


@dataclass
class Stop:
    """Whether a signal has requested to stop."""

    requested: bool = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM inside the block; a second Ctrl-C raises KeyboardInterrupt."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread can install handlers
        return

    def handle(number: int, _: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True
        with suppress(RuntimeError, OSError):  # another line is being printed, or stderr is closed
            say("stopping after this step; press Ctrl-C again to stop immediately")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
