"""Who looks on while a run learns: the screen, TensorBoard, a user's own.

A watch is told what metrics.jsonl is told. It changes nothing: what it gets is a copy, and one that
fails in the middle of a run is named once and not asked again.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from onetrunk.errors import BadInput, OnetrunkError, printable
from onetrunk.progress import say
from onetrunk.train.console import Screen
from onetrunk.train.tensorboard import TensorBoard

EXISTS = ("tensorboard", "package.module:thing")
ACTS = ("begin", "step", "evaluated", "end")


class Watch(Protocol):
    """What a user's own watch has; it is made by `thing(folder)` before the run begins."""

    def begin(self, plan: Mapping[str, Any]) -> None:
        """A part begins or goes on: {"part", "step", "steps", "domains", "run"}."""

    def step(self, record: Mapping[str, Any]) -> None:
        """A line: {"part", "step", "lr", "loss", "seconds", "images_per_s", "left_s"}."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """An evaluation: {"part", "step", "val", "score", "best"}."""

    def end(self) -> None:
        """The part is over, or stopped."""


Make = Callable[[Path], Watch]


def make_watch(names: Sequence[str], folder: str | PathLike[str]) -> Watch:
    """The screen, and what is named: "tensorboard", or a user's own "package.module:thing"."""
    makes = [(name, find(name)) for name in names]
    watches: list[tuple[str, Watch]] = [("screen", Screen())]
    for name, make in makes:
        try:
            watch = make(Path(folder))
        except OnetrunkError:
            raise
        except Exception as error:
            raise BadInput(f"the logger {name} does not start", got=_told(error)) from error
        lacking = [act for act in ACTS if not callable(getattr(watch, act, None))]
        if lacking:
            raise BadInput(
                f"the logger {name} gives an object with {', '.join(ACTS)}",
                got=f"{type(watch).__name__} without {', '.join(lacking)}",
            )
        watches.append((name, watch))
    return Several(watches)


def find(name: str) -> Make:
    """What makes the watch of this name; refused here, before a run is begun, if it cannot."""
    if name == "tensorboard":
        return TensorBoard
    module, colon, thing = name.partition(":")
    if not (module and colon and thing):
        raise BadInput(
            "expected a logger's name, or package.module:thing", got=name, available=EXISTS
        )
    try:
        owner = importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"logger {name}: cannot import {module}", got=str(error)) from None
    except Exception as error:
        raise BadInput(f"logger {name}: {module} fails when imported", got=_told(error)) from error
    make = getattr(owner, thing, None)
    if not callable(make):
        there = [key for key, value in vars(owner).items() if callable(value) and key[0] != "_"]
        raise BadInput(f"logger {name}: {module} has nothing to call", got=thing, available=there)
    found: Make = make
    return found


class Several:
    """Tells all; whatever one of them does, training goes on."""

    def __init__(self, watches: Sequence[tuple[str, Watch]]) -> None:
        self.watches = list(watches)

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("begin", lambda watch: watch.begin(copy.deepcopy(dict(plan))))

    def step(self, record: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("step", lambda watch: watch.step(copy.deepcopy(dict(record))))

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("evaluated", lambda watch: watch.evaluated(copy.deepcopy(dict(record))))

    def end(self) -> None:
        """Tell all."""
        self._tell("end", lambda watch: watch.end())

    def _tell(self, act: str, tell: Callable[[Watch], None]) -> None:
        for name, watch in list(self.watches):
            try:
                tell(watch)
            except Exception as error:  # a user's code: anything
                self.watches.remove((name, watch))
                say(
                    printable(
                        f"the logger {name} failed in {act} ({_told(error)}) and is switched off; "
                        "training goes on"
                    )
                )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
