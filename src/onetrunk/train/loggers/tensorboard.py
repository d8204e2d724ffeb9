"""TensorBoard: event files in the folder of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onetrunk.errors import Missing
from onetrunk.train.loggers._scalars import scalars

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        self._add(record)

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Write validation errors and the mean that chooses the best step."""
        self._add(record)
        if self._writer is not None:
            self._writer.flush()

    def end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        if self._writer is None:
            # remove what a killed run wrote after its last checkpoint; it will be written again
            self._writer = self._make(str(self._folder / self._part), purge_step=step)
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, step)


LOGGER = TensorBoardLogger
