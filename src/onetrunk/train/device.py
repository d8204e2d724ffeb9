"""Where and in which numbers a model learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onetrunk.errors import BadInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(asked: str | torch.device | None = None) -> torch.device:
    """The one asked for, else CUDA, MPS or the CPU, whichever is there first."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *there]
    if asked is None:
        return torch.device(there[0])
    if str(asked) not in there:
        raise BadInput("no such device here", got=str(asked), available=there)
    return torch.device(asked)


@dataclass
class Precision:
    """Autocast where the device gains from it, and a scaler where float16 needs one."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """`auto`: on CUDA bfloat16 (float16 where the card has none), elsewhere float32."""
        if name == "auto":
            name = "float32"
            if device.type == "cuda":
                name = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        dtype = DTYPES[name]
        scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None
        return cls(device, dtype, scaler)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The forward pass runs in here."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor, again: bool = False) -> None:
        """Gradients of a loss, scaled up where float16 would lose them; `again`: it comes again."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward(retain_graph=again)  # type: ignore[no-untyped-call]

    def unscale(self, optimizers: Iterable[tuple[str, torch.optim.Optimizer]]) -> None:
        """Gradients as they are, before something looks at their size."""
        if self.scaler is not None:
            for _, optimizer in optimizers:
                self.scaler.unscale_(optimizer)

    def update(self) -> None:
        """After a step."""
        if self.scaler is not None:
            self.scaler.update()


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Algorithms that give the same bits every time, and a generator that is the caller's again.

    An operation without such an algorithm warns once and goes on.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            if wanted:
                torch.use_deterministic_algorithms(True, warn_only=True)
                memory.fill_uninitialized_memory = False  # it only costs time
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn)
            memory.fill_uninitialized_memory = fill


def start_generators(seed: int, device: torch.device) -> None:
    """Those that training draws from; `torch.manual_seed` would move those of every device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
