"""The switch: which domain, or which domain per image, a model is running right now.

One per model. Banks read it; only the model's own call sets it. The choice lives in a context
variable, so threads and asyncio tasks never see each other's. Two places have no such context:

- the backward pass, which on a GPU runs in autograd's own thread and, under gradient
  checkpointing, computes forward again: `keep` ties a pass's choice to its features, so that the
  backward pass that reaches them finds it (by autograd's graph task, which no two of them share);
- a trace (torch.compile, torch.export), which sees no context variable: there a plain field holds
  the choice, set and reset inside the trace.
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

    The batch is sorted by domain, so that `names` and `sizes` cut it into segments; a trace knows
    neither, and has only the index.
    """

    index: Tensor  # (B,) int64
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


Choice = str | Mixed


class Switch:
    """Says which domain runs; `names` are all that there are, in the order of their rows."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.lock = threading.RLock()  # held while banks rearrange their storage
        self._now: ContextVar[tuple[Choice, int] | None] = ContextVar("domain", default=None)
        self._backward: dict[int, Choice] = {}  # by graph task
        self._traced: Choice | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names}  # a copy of a model runs nothing yet

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["names"])  # type: ignore[misc]

    def read(self) -> Choice:
        """The domain that is running."""
        if torch.compiler.is_compiling() and self._traced is not None:
            return self._traced
        now = self._now.get()
        task: int = torch._C._current_graph_task_id()  # -1 outside of a backward pass
        # A choice made outside of this backward pass is not for what it computes again.
        if now is not None and (task == -1 or now[1] == task):
            return now[0]
        if task in self._backward:
            return self._backward[task]
        if now is not None:
            return now[0]
        raise Failed("no domain is running; try: call the model, as model(images, domain=NAME)")

    @contextmanager
    def using(self, choice: Choice) -> Iterator[None]:
        """Run what is inside with this choice; the one before comes back whatever happens."""
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
        """Tie the choice of a pass to what came out of it, for the backward pass to find.

        Autograd visits later passes first and one pass as a whole, so each pass's features announce
        it before any of its layers is computed again.
        """
        if torch.compiler.is_compiling():
            return

        def announce(_: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            if task not in self._backward:
                Variable._execution_engine.queue_callback(lambda: self._forget(task))
            self._backward[task] = choice

        for tensor in features:
            if tensor.requires_grad:
                tensor.register_hook(announce)  # type: ignore[no-untyped-call]

    def _forget(self, task: int) -> None:
        self._backward.pop(task, None)
