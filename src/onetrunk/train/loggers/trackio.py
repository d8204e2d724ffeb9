"""Trackio: a local database; `trackio show` opens its page. `TRACKIO_PROJECT` sets the project."""

from __future__ import annotations

import os
from typing import Any

from onetrunk.train.loggers._scalars import Tracker


class TrackioLogger(Tracker):
    """Logs numbers to a run that a resumed training continues, as its name has an id."""

    package = "trackio"
    _run: Any = None

    def open(self, name: str, config: dict[str, Any]) -> None:
        """Open the run of this folder."""
        self._run = self.api.init(
            project=os.environ.get("TRACKIO_PROJECT") or "onetrunk",
            name=f"{name}-{self.sent.open()}",
            config=config,
            resume="allow",
            embed=False,
        )

    def send(self, step: int, numbers: dict[str, float]) -> None:
        """Log the numbers of one step."""
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Write what is left."""
        if self._run is not None:
            self._run.finish()
            self._run = None


LOGGER = TrackioLogger
