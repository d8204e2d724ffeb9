"""Device, precision, and determinism of a training."""

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


def choose_device(requested: str | torch.device | None = None) -> torch.device:
    """Return the requested device, by default the first available of CUDA, MPS and the CPU."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        available = ["cuda", *gpus, *available]
    if requested is None:
        return torch.device(available[0])
    if str(requested) not in available:
        raise BadInput("expected an available device", got=str(requested), available=available)
    return torch.device(requested)


@dataclass
class Precision:
    """Autocast if the device gains from it, and a gradient scaler for float16."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """Return a precision; `auto`: bfloat16 on CUDA (float16 if unsupported), else float32."""
        if name == "auto":
            name = "float32"
            if device.type == "cuda":
                name = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        dtype = DTYPES[name]
        scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None
        return cls(device, dtype, scaler)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of forward passes."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor, retain: bool = False) -> None:
        """Run the backward pass of a loss, scaled for float16; `retain` keeps its graph."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward(retain_graph=retain)  # type: ignore[no-untyped-call]

    def unscale(self, optimizers: Iterable[tuple[str, torch.optim.Optimizer]]) -> None:
        """Divide gradients by the scale, before their norm is clipped."""
        if self.scaler is not None:
            for _, optimizer in optimizers:
                self.scaler.unscale_(optimizer)

    def update(self) -> None:
        """Adjust the scale after a step."""
        if self.scaler is not None:
            self.scaler.update()


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms in the block, and restore torch's generators after it.

    An operation without a deterministic algorithm is run with a warning.
    """
    # not torch.use_deterministic_algorithms, which loads torch's compiler: as slow as torch itself
    before = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            if wanted:
                torch.set_deterministic_debug_mode("warn")
                memory.fill_uninitialized_memory = False  # not needed, and slow
            yield
        finally:
            torch.set_deterministic_debug_mode(before)
            memory.fill_uninitialized_memory = fill


def start_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that training uses; `torch.manual_seed` would seed every device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
