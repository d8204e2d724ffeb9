"""Loggers: the console, experiment trackers, and user-defined ones.

A logger receives what metrics.jsonl receives. It cannot change the training: it gets copies, and
one that raises an error is reported once and switched off. A built-in logger has the name of its
file, of the package that it needs, and of the extra that installs it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from onetrunk.errors import BadInput, Missing, OnetrunkError, printable
from onetrunk.progress import say
from onetrunk.registry import Registry
from onetrunk.train.console import ConsoleLogger

METHODS = ("begin", "log_step", "log_evaluation", "end")


class Logger(Protocol):
    """The methods of a logger; `factory(folder)` creates it before the run begins."""

    def begin(self, plan: Mapping[str, Any]) -> None:
        """A part begins or resumes: {"part", "step", "steps", "domains", "run", "name", "config"}.

        A part is one network of the run, "" if it has only one; `config` is the resolved recipe.
        """

    def log_step(self, record: Mapping[str, Any]) -> None:
        """A log line: {"part", "step", "lr", "loss", "seconds", "images_per_s", "left_s"}."""

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """An evaluation: {"part", "step", "val", "score", "best"}."""

    def end(self) -> None:
        """The part is finished, or was stopped."""


Factory = Callable[[Path], Logger]


LOGGERS = Registry[Factory]("onetrunk.train.loggers", "logger")


def load_logger(name: str) -> Factory:
    """Return the factory of a logger: a built-in one by name, or "package.module:thing"."""
    factory = LOGGERS.load(name)
    if not callable(factory):
        raise BadInput(
            f"logger {name}: expected a class or function to call with the run's folder",
            got=type(factory).__name__,
        )
    return factory


def check_loggers(loggers: Sequence[str | Logger]) -> None:
    """Raise BadInput or Missing for loggers that cannot be used, before anything is made."""
    if isinstance(loggers, str) or not isinstance(loggers, Iterable):
        got = loggers if isinstance(loggers, str) else type(loggers).__name__
        raise BadInput("expected a list of loggers", got=got, try_=f"loggers=[{got!r}]")
    for logger in loggers:
        if isinstance(logger, str):
            load_logger(logger)
            if logger in LOGGERS and find_spec(logger) is None:  # named after its package
                raise Missing(logger, logger, f"the logger {logger}")
        else:
            _check_methods(type(logger).__name__, logger)


def make_logger(
    loggers: Sequence[str | Logger],
    folder: str | PathLike[str],
    about: Mapping[str, Any] = MappingProxyType({}),
) -> Logger:
    """Create the console logger and these ones, as one logger.

    Args:
        loggers: Names, or loggers.
        folder: The folder of the run.
        about: What each `plan` contains as well: the name of the run and its config.
    """
    factories = [(name, load_logger(name) if isinstance(name, str) else None) for name in loggers]
    made: list[tuple[str, Logger]] = [("console", ConsoleLogger())]
    for given, factory in factories:
        if factory is None:
            made.append((type(given).__name__, cast(Logger, given)))
            continue
        try:
            logger = factory(Path(folder))
        except OnetrunkError:
            raise
        except Exception as error:
            raise BadInput(f"the logger {given} cannot be created", got=_shown(error)) from error
        made.append((str(given), logger))
    for name, logger in made:
        _check_methods(name, logger)
    return Loggers(made, about)


def _check_methods(name: str, logger: object) -> None:
    missing = [key for key in METHODS if not callable(getattr(logger, key, None))]
    if missing:
        raise BadInput(
            f"the logger {name} needs the methods {', '.join(METHODS)}",
            got=f"{type(logger).__name__} without {', '.join(missing)}",
        )


class Loggers:
    """Several loggers as one; an error in one of them does not stop the training."""

    def __init__(
        self,
        loggers: Sequence[tuple[str, Logger]],
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.loggers = list(loggers)
        self.about = about

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Call each logger."""
        self._call("begin", {**plan, **self.about})

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
