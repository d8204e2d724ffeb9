"""A run in TensorBoard: `tensorboard --logdir RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onetrunk.errors import Missing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A watch that writes scalars; each part of a run has a line of its own."""

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
        """Nothing is written before there is something to show."""
        self.end()
        self._part = plan["part"]

    def step(self, record: Mapping[str, Any]) -> None:
        """Losses, the rate of learning, images per second."""
        self._add(record["step"], "lr", record["lr"])
        for group in ("loss", "images_per_s"):
            for name, value in record[group].items():
                self._add(record["step"], f"{group}/{name}", value)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Validation errors, and the mean by which the best is chosen."""
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
            # what a killed run wrote after its last checkpoint comes once more from here on
            self._writer = self._make(str(self._folder / self._part), purge_step=step)
        self._writer.add_scalar(name, value, step)
