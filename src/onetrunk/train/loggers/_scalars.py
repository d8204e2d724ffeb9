"""What experiment trackers get: a flat table of numbers for each record, each of them once."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onetrunk.errors import Missing
from onetrunk.store.atomic import make_folder, write_atomic

GROUPS = ("loss", "distilled", "images_per_s", "val")  # tables of numbers, by domain and task
SINGLE = ("lr", "score")


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by name: `loss/digits/classify`, `lr`, `val/…/error`."""
    named = {name: record.get(name) for name in SINGLE}
    for group in GROUPS:
        named |= {f"{group}/{name}": value for name, value in record.get(group, {}).items()}
    return {name: float(value) for name, value in named.items() if value is not None}


def import_package(name: str) -> Any:
    """Import the package of a logger, or raise Missing, which names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(name, name, f"the logger {name}") from None


class Sent:
    """What a tracker has got of a run: the id of its run there, and the last step of each kind.

    A run that is killed and resumed computes the steps after its last checkpoint again, with the
    same results, so a step that was sent once is not sent again.

    Args:
        folder: The folder of the run.
        name: The name of the logger.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / "loggers" / f"{name}.json"
        self.id = ""
        self._steps: dict[str, int] = {}
        try:
            document = json.loads(self._path.read_text("utf-8"))
            self.id, self._steps = str(document["id"]), dict(document["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing has been sent, or nobody knows

    def open(self, run_id: str = "") -> str:
        """Return the id of the run; a new run gets this one, or a random one."""
        if not self.id:
            self.id = run_id or uuid.uuid4().hex[:12]
            self._write()
        return self.id

    def is_new(self, part: str, record: Mapping[str, Any]) -> bool:
        """Return whether a record has not been sent yet."""
        return int(record["step"]) > self._steps.get(_kind(part, record), -1)

    def add(self, part: str, record: Mapping[str, Any]) -> None:
        """Record that a record has been sent."""
        self._steps[_kind(part, record)] = int(record["step"])
        self._write()

    def _write(self) -> None:
        make_folder(self._path.parent)
        write_atomic(self._path, json.dumps({"id": self.id, "steps": self._steps}) + "\n")


def _kind(part: str, record: Mapping[str, Any]) -> str:
    return f"{part}:{'evaluation' if 'val' in record else 'step'}"


class Tracker:
    """The base of loggers that send numbers to an experiment tracker.

    A subclass opens the run of the tracker, or the one that a killed training has left, and sends.
    """

    package = ""

    def __init__(self, folder: Path) -> None:
        self.api = import_package(self.package)
        self.folder = folder
        self.sent = Sent(folder, self.package)
        self.part = ""

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Open the run."""
        self.part = str(plan["part"])
        self.open(str(plan.get("name") or self.folder.name), dict(plan.get("config") or {}))

    def log_step(self, record: Mapping[str, Any]) -> None:
        """Send losses, learning rate, images per second."""
        self._send(record)

    def log_evaluation(self, record: Mapping[str, Any]) -> None:
        """Send validation scores."""
        self._send(record)

    def end(self) -> None:
        """Send what is left, and close the run."""
        self.close()

    def _send(self, record: Mapping[str, Any]) -> None:
        if self.sent.is_new(self.part, record):
            before = f"{self.part}/" if self.part else ""
            numbers = {f"{before}{name}": value for name, value in scalars(record).items()}
            self.send(int(record["step"]), numbers)
            self.sent.add(self.part, record)

    def open(self, name: str, config: dict[str, Any]) -> None:
        """Open the tracker's run, with this name and config."""
        raise NotImplementedError

    def send(self, step: int, numbers: dict[str, float]) -> None:
        """Send the numbers of one step."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the tracker's run; it may be opened again."""
        raise NotImplementedError
