"""Loggers: the console, TensorBoard, and user-defined ones.

A logger receives what metrics.jsonl receives. It cannot change the training: it gets copies, and
one that raises an error is reported once and switched off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from onetrunk.errors import BadInput, Missing, OnetrunkError, printable
from onetrunk.objects import load_object
from onetrunk.progress import say
from onetrunk.train.console import ConsoleLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METHODS = ("begin", "log_step", "log_evaluation", "end")


class Logger(Protocol):
    """The methods of a logger; `factory(folder)` creates it before the run begins."""

    def begin(self, plan: Mapping[str, Any]) -> None:
        """A part begins or resumes: {"part", "step", "steps", "domains", "run"}."""

    def log_step(self, record: Mapping[str, Any]) -> None:
        """A log line: {"part", "step", "lr", "loss", "seconds", "images_per_s", "left_s"}."""

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """An evaluation: {"part", "step", "val", "score", "best"}."""

    def end(self) -> None:
        """The part is finished, or was stopped."""


Factory = Callable[[Path], Logger]


class TensorBoardLogger:
    """Scalars for `tensorboard --logdir RUN/tensorboard`; each part of a run has its own curve."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Missing("tensorboard", "tensorboard", "the logger tensorboard") from None
        self._make = SummaryWriter
        self._folder = folder / "tensorboard"
        self._part = ""
        self._writer: SummaryWriter | None = None

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Close the file of the previous part; the first value opens the next one."""
        self.end()
        self._part = plan["part"]

    def log_step(self, record: Mapping[str, Any]) -> None:
        """Write losses, learning rate, images per second."""
        self._add(record["step"], "lr", record["lr"])
        for group in ("loss", "images_per_s"):
            for name, value in record[group].items():
                self._add(record["step"], f"{group}/{name}", value)

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Write validation errors and the mean that chooses the best step."""
        for name, value in record["val"].items():
            self._add(record["step"], f"val/{name}", value)
        self._add(record["step"], "score", record["score"])
        if self._writer is not None:
            self._writer.flush()

    def end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, step: int, name: str, value: float | None) -> None:
        if value is None:
            return
        if self._writer is None:
            # remove what a killed run wrote after its last checkpoint; it will be written again
            self._writer = self._make(str(self._folder / self._part), purge_step=step)
        self._writer.add_scalar(name, value, step)


BUILT_IN: Mapping[str, Factory] = {"tensorboard": TensorBoardLogger}


def load_logger(name: str) -> Factory:
    """Return the factory of a logger: "tensorboard" or "package.module:thing"."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    factory = load_object(name, "logger", BUILT_IN)
    if not callable(factory):
        raise BadInput(
            f"logger {name}: expected a class or function to call with the run's folder",
            got=type(factory).__name__,
        )
    checked: Factory = factory
    return checked


def make_logger(names: Sequence[str], folder: str | PathLike[str]) -> Logger:
    """Create the console logger and the named ones, as one logger."""
    factories = [(name, load_logger(name)) for name in names]
    loggers: list[tuple[str, Logger]] = [("console", ConsoleLogger())]
    for name, factory in factories:
        try:
            logger = factory(Path(folder))
        except OnetrunkError:
            raise
        except Exception as error:
            raise BadInput(f"the logger {name} cannot be created", got=_shown(error)) from error
        missing = [key for key in METHODS if not callable(getattr(logger, key, None))]
        if missing:
            raise BadInput(
                f"the logger {name} needs the methods {', '.join(METHODS)}",
                got=f"{type(logger).__name__} without {', '.join(missing)}",
            )
        loggers.append((name, logger))
    return Loggers(loggers)


class Loggers:
    """Several loggers as one; an error in one of them does not stop the training."""

    def __init__(self, loggers: Sequence[tuple[str, Logger]]) -> None:
        self.loggers = list(loggers)

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Call each logger."""
        self._call("begin", plan)

    def log_step(self, record: Mapping[str, Any]) -> None:
        """Call each logger."""
        self._call("log_step", record)

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Call each logger."""
        self._call("log_evaluation", record)

    def end(self) -> None:
        """Call each logger."""
        self._call("end")

    def _call(self, method: str, *records: Mapping[str, Any]) -> None:
        for name, logger in list(self.loggers):
            try:
                getattr(logger, method)(*(copy.deepcopy(dict(record)) for record in records))
            except Exception as error:  # a user's code can raise anything
                self.loggers.remove((name, logger))
                line = f"the logger {name} failed in {method} ({_shown(error)}) and is switched off"
                say(printable(f"{line}; training continues"))


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
