"""Weights & Biases: one run, which a resumed training continues.

Without an API key, or with `WANDB_MODE=offline`, the run is written into the folder of the run, and
`wandb sync` uploads it. `WANDB_PROJECT` sets the project.
"""

from __future__ import annotations

import netrc
import os
from typing import Any
from urllib.parse import urlsplit

from onetrunk.progress import say
from onetrunk.train.loggers._scalars import Tracker


class WandbLogger(Tracker):
    """Sends numbers with `step` as the axis, as a network of a run with several has its own."""

    package = "wandb"
    _run: Any = None

    def open(self, name: str, config: dict[str, Any]) -> None:
        """Open the run of this folder."""
        mode = os.environ.get("WANDB_MODE") or ("online" if has_credentials() else "offline")
        self._run = self.api.init(
            project=os.environ.get("WANDB_PROJECT") or "onetrunk",
            id=self.sent.open(),
            name=name,
            config=config,
            dir=str(self.folder),
            mode=mode,
            resume=None if mode == "offline" else "allow",
            settings=self.api.Settings(silent=True),
        )
        axis = self._axis
        self._run.define_metric(axis)
        self._run.define_metric(f"{self.part}/*" if self.part else "*", step_metric=axis)
        if mode == "offline":
            say(f"wandb is offline; upload later: wandb sync {self._run.settings.sync_dir}")

    @property
    def _axis(self) -> str:
        return f"{self.part}/step" if self.part else "step"

    def send(self, step: int, numbers: dict[str, float]) -> None:
        """Log the numbers of one step."""
        self._run.log({self._axis: step, **numbers})

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def has_credentials() -> bool:
    """Return whether the user has logged in; wandb itself would ask for a key."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC") or None).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


LOGGER = WandbLogger
