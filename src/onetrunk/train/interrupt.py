"""Ctrl-C and SIGTERM end a step, not a write: the loop asks, saves a checkpoint, and leaves."""

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
    """Training was asked to stop and can go on with the command `again`: exit code 1."""

    def __init__(self, said: str, again: str) -> None:
        super().__init__(f"{said}; try: {again}")
        self.said = said


def stopped(where: str, run: Path, what: str = "all of it") -> Stopped:
    """What to raise: `where` is "at step 3 of 40", `what` is kept."""
    again = f"onetrunk train {shlex.quote(str(run / 'recipe.toml'))} --resume"
    return Stopped(f"stopped {where}, {what} kept in {run}", again)


@dataclass
class Stop:
    """`if stop.asked: …`"""

    asked: bool = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Listen to the two signals; a second Ctrl-C ends at once, at the last checkpoint."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may listen
        return

    def ask(number: int, _: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True
        with suppress(RuntimeError, OSError):  # in the middle of another line, or nobody listens
            say("stopping after this step; once more to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
