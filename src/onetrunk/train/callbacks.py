"""Callbacks: a user's own code at four moments of a training.

A callback may look at everything and ask the training to stop. An exception ends the run: the step
is finished and saved first, so that `--resume` continues after it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, Failed, OnetrunkError, printable
from onetrunk.nn.universal import Universal
from onetrunk.progress import say


@dataclass
class Training:
    """The state of a training that callbacks see.

    Args:
        model: The network. A callback must not change it: that could not be repeated.
        domains: Its domains.
        folder: The folder of the run.
        part: The network, in a run that trains several: the name of its domain; otherwise "".
        step: The finished steps.
        steps: The steps of the whole training; 0 if its length is given in hours.
        losses: The losses of the last step by `"domain/task"`.
        val: The last validation scores by `"domain/task/metric"`.
        score: Their mean, by which the best weights are chosen; lower is better.
        best: Whether the last validation is the best so far.
        reason: Why the training has ended, in `on_end`.
    """

    model: Universal
    domains: Sequence[Domain]
    folder: Path
    part: str = ""
    step: int = 0
    steps: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)
    val: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    best: bool = False
    reason: str = ""
    _stop: str | None = field(default=None, init=False, repr=False)

    def stop(self, reason: str = "a callback has requested it") -> None:
        """End the training after this step: evaluate, and keep the best weights, as at its end."""
        if self._stop is None:
            self._stop = reason

    @property
    def stop_reason(self) -> str | None:
        """The reason given to `stop`, if it was called."""
        return self._stop


class Callback:
    """The base class of callbacks; override what you need.

    class StopWhenGood(ot.Callback):
        def on_eval(self, training):
            if training.score is not None and training.score < 5.0:
                training.stop("the error is below 5 %")

    ot.train(model, domains, out="runs/shop", callbacks=[StopWhenGood()])
    """

    def on_start(self, training: Training) -> None:
        """The training of a network begins, or continues (then `training.step` is above 0)."""

    def on_step(self, training: Training) -> None:
        """A step is finished: `training.losses`."""

    def on_eval(self, training: Training) -> None:
        """A validation is finished: `training.val`, `score` and `best`."""

    def on_end(self, training: Training) -> None:
        """The training has ended, been interrupted or failed: `training.reason`."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed training must know, such as a counter, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""


HOOKS = ("on_start", "on_step", "on_eval", "on_end")


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise BadInput for an object that is not a callback."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise BadInput(
            "expected a list of callbacks", got=type(callbacks).__name__, try_="callbacks=[…]"
        )
    for callback in callbacks:
        if not isinstance(callback, Callback):
            got = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            raise BadInput(
                "expected a callback: an object of a class derived from onetrunk.Callback",
                got=got,
                available=HOOKS,
                try_=f"{got}()" if isinstance(callback, type) else f"class {got}(ot.Callback)",
            )


class Callbacks:
    """The callbacks of the training of one network."""

    def __init__(self, callbacks: Sequence[Callback], training: Training) -> None:
        self.callbacks = list(callbacks)
        self.training = training
        self.failure: Failed | None = None  # raised when the step is saved

    def __bool__(self) -> bool:
        return bool(self.callbacks)

    @property
    def stopping(self) -> bool:
        """Whether the training has to end after this step."""
        return self.training.stop_reason is not None or self.failure is not None

    def call(self, hook: str) -> None:
        """Call one hook of all callbacks; after a failure, none is called any more."""
        for callback in self.callbacks:
            if self.failure is not None:
                return
            try:
                getattr(callback, hook)(self.training)
            except Exception as error:  # a user's code can raise anything
                self.failure = self._failed(callback, hook, error)

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """A step is finished."""
        self.training.step, self.training.losses = step, dict(losses)
        self.call("on_step")

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """A validation is finished."""
        self.training.val, self.training.score = dict(record["val"]), record["score"]
        self.training.best = bool(record["best"])
        self.call("on_eval")

    def end(self, error: BaseException | None) -> None:
        """The training has ended; after an error, a failure of `on_end` is only printed."""
        before = self.failure
        self.failure = None
        self.training.reason = _reason(self.training, error)
        self.call("on_end")
        if self.failure is not None and error is not None:
            say(str(self.failure))
            self.failure = before

    def raise_failure(self) -> None:
        """Raise the failure of a callback, if there is one."""
        if self.failure is not None:
            raise self.failure

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        states = [[type(each).__name__, each.state()] for each in self.callbacks]
        return {"stop": self.training.stop_reason, "states": states}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state from a checkpoint; callbacks that are new start afresh."""
        if state.get("stop") is not None:
            self.training.stop(str(state["stop"]))
        saved = list(state.get("states", ()))
        for callback in self.callbacks:
            for each in saved:
                if each[0] == type(callback).__name__:
                    callback.restore(each[1])
                    saved.remove(each)
                    break

    def _failed(self, callback: Callback, hook: str, error: Exception) -> Failed:
        again = f"onetrunk train {shlex.quote(str(self.training.folder / 'recipe.toml'))} --resume"
        where = f"at step {self.training.step}"
        failed = Failed(
            f"the callback {type(callback).__name__} failed in {hook} {where}; the progress is "
            f"saved in {self.training.folder}",
            got=printable(f"{type(error).__name__}: {error}"[:200]),
            try_=f"correct or remove it, then call train(…, resume=True), or {again}",
        )
        failed.__cause__ = error
        return failed


def _reason(training: Training, error: BaseException | None) -> str:
    if error is None:
        return training.stop_reason or "finished"
    if isinstance(error, OnetrunkError):
        return error.expected
    return f"{type(error).__name__}: {error}".removesuffix(": ")
