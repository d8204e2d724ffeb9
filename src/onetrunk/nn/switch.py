"""The switch: the domain, or the domain of each image, that a model is running.

There is one per model. Banks read it; only a call of the model sets it. The choice is kept in a
context variable, so threads and asyncio tasks do not share it. Two cases need more:

- the backward pass, which on a GPU runs in a thread of autograd and, under gradient checkpointing,
  runs the forward pass again: `keep` attaches the choice of a pass to its features, and the
  backward pass stores it by autograd's graph task, which is unique to a backward pass;
- a trace (torch.compile, torch.export), which cannot read context variables: an attribute has the
  choice, which is set and reset inside the trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

from onetrunk.errors import Failed


@dataclass(frozen=True, eq=False)
class Mixed:
    """A batch of several domains: `index[i]` is the row of image i's domain in `switch.names`.

    The batch is sorted by domain, and `names` and `sizes` describe its segments; a trace has only
    the index.
    """

    index: Tensor  # (B,) int64
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


Choice = str | Mixed


class Switch:
    """The choice of the current domain; `names` are all domains, in the order of their rows."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.lock = threading.RLock()  # locked while banks rearrange their storage
        self._now: ContextVar[tuple[Choice, int] | None] = ContextVar("domain", default=None)
        self._backward: dict[int, Choice] = {}  # by graph task
        self._traced: Choice | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names}  # a copy of a model is not running

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["names"])  # type: ignore[misc]

    def read(self) -> Choice:
        """Return the current domain, or the domains of a mixed batch."""
        if torch.compiler.is_compiling() and self._traced is not None:
            return self._traced
        now = self._now.get()
        task: int = torch._C._current_graph_task_id()  # -1 outside of a backward pass
        # A choice set outside of this backward pass does not apply to layers that it runs again.
        if now is not None and (task == -1 or now[1] == task):
            return now[0]
        if task in self._backward:
            return self._backward[task]
        if now is not None:
            return now[0]
        raise Failed("no domain is running", try_="model(images, domain=NAME)")

    @property
    def rows(self) -> dict[str, int]:
        """The row of each domain."""
        return {name: row for row, name in enumerate(self.names)}

    @contextmanager
    def using(self, choice: Choice) -> Iterator[None]:
        """Set the choice while the block runs."""
        if torch.compiler.is_compiling():
            before, self._traced = self._traced, choice
            try:
                yield
            finally:
                self._traced = before
            return
        token = self._now.set((choice, torch._C._current_graph_task_id()))
        try:
            yield
        finally:
            self._now.reset(token)

    def keep(self, features: Iterable[Tensor], choice: Choice) -> None:
        """Attach the choice of a pass to its features, for the backward pass.

        Autograd visits later passes first and finishes one before the next, so the hooks on a
        pass's features run before any of its layers is computed again.
        """
        if torch.compiler.is_compiling():
            return

        def restore(_: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            if task not in self._backward:
                Variable._execution_engine.queue_callback(lambda: self._forget(task))
            self._backward[task] = choice

        for tensor in features:
            if tensor.requires_grad:
                tensor.register_hook(restore)  # type: ignore[no-untyped-call]

    def _forget(self, task: int) -> None:
        self._backward.pop(task, None)
