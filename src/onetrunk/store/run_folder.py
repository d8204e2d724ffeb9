"""The folder of one run: recipe, metrics, checkpoints and scores, with one writer at a time."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from onetrunk.errors import BadInput, Failed, shorten
from onetrunk.progress import say
from onetrunk.store import checkpoint
from onetrunk.store.atomic import clear_leftovers, make_folder, write_atomic
from onetrunk.store.checkpoint import Saved
from onetrunk.store.differ import differ
from onetrunk.store.places import IGNORED, check_folder, check_writable
from onetrunk.store.strict_json import nulls, strict_json

__all__ = ["RunFolder", "Saved"]

RECIPE, METRICS, SCORES, LOCK = "recipe.toml", "metrics.jsonl", "scores.json", ".lock"
CHECKPOINTS = "checkpoints"
PART = re.compile(r"|[a-z0-9][a-z0-9_-]{0,63}")  # "", or the name of a specialist
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
WRITTEN = re.compile(
    r"[a-z]+|[a-z_-]+\.(toml|json|jsonl|safetensors|html|csv)"
)  # at the top of a run
# what a run holds before its first checkpoint
BEGUN = (RECIPE, METRICS, "environment.json", "splits.safetensors")


class RunFolder:
    """An open run, locked against other writers.

        with RunFolder.open("runs/shop", recipe_text, resume=True) as run:
            run.log({"step": 1, "loss": 0.5})

    Use `open` or `hold` instead of the constructor.

    Args:
        command: The command that continues the work, for messages; by default the training's.
    """

    def __init__(self, path: Path, lock: FileLock, command: str | None = None) -> None:
        self.path = path
        self.command = command or f"onetrunk train {shell(path / RECIPE)} --resume"
        self._instead = (  # what to do if the recipe differs
            f"another `out`, or {self.command}" if command is None else f"remove {shell(path)}"
        )
        self._lock = lock
        self._metrics: FileIO | None = None
        self._created: list[Path] = []  # folders, the innermost first
        self._begun = False  # whether this object started the run

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        recipe: str,
        *,
        resume: bool = False,
        command: str | None = None,
    ) -> RunFolder:
        """Start a run, or continue one that has the same recipe."""
        folder = Path(path)
        check_place(folder)
        run = cls._locked(folder, command, "wait until it ends, or give this run another `out`")
        try:
            run._begin(recipe, resume)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def hold(cls, path: str | PathLike[str], command: str) -> RunFolder:
        """Lock a folder that holds a model, in order to change the model."""
        run = cls._locked(Path(path), command, f"wait until it ends, then {command}")
        try:
            with run.writing("the run's folder"):
                run._clear_leftovers()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def _locked(cls, folder: Path, command: str | None, if_locked: str) -> RunFolder:
        run = cls(folder, FileLock(folder / LOCK, blocking=False), command)
        with run.writing(f"the run {folder}"):
            run._created = [p for p in (folder, *folder.absolute().parents) if not p.exists()]
            make_folder(folder)
            try:
                run._lock.acquire()
            except Timeout:
                raise BadInput(
                    f"another process is writing to the run {folder}", try_=if_locked
                ) from None
        return run

    def _begin(self, recipe: str, resume: bool) -> None:
        path = self.path / RECIPE
        with self.writing("the run's folder"):
            self._clear_leftovers()
        if not path.exists():
            check_place(self.path)  # again, now that the folder is locked
            self._begun = True
            self.write(RECIPE, recipe)
            return
        try:
            old = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}", got=str(error)[:100]) from None
        # a run that was moved is continued where it is now
        if keys := [key for key in differ(old, recipe) if not key.startswith("out (")]:
            raise BadInput(
                f"{self.path} holds a run with another recipe: {shorten(keys, 6)}",
                try_=self._instead,
            )
        if not resume and self.finished:
            raise BadInput(
                f"the run {self.path} is finished", try_=f"onetrunk eval {shell(self.path)}"
            )
        if not resume:
            step = max((s for place in self._places() for s in checkpoint.steps(place)), default=0)
            raise BadInput(f"the run {self.path} is unfinished at step {step}", try_=self.command)

    def _clear_leftovers(self) -> None:
        clear_leftovers(self.path, WRITTEN)
        for place in self._places():
            checkpoint.tidy(place)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; numbers that are not finite become null."""
        line = strict_json(nulls(record)).encode() + b"\n"
        with self.writing(METRICS):
            file = self._open_metrics()
            before = file.seek(0, os.SEEK_END)
            try:
                done = 0
                while done < len(line):  # a write may be partial if the disk is full
                    done += file.write(line[done:])
            except OSError:
                file.truncate(before)
                raise

    def _open_metrics(self) -> FileIO:
        if self._metrics is None:  # unbuffered, so that a kill loses no line
            self._metrics = (self.path / METRICS).open("ab", buffering=0)
        return self._metrics

    def save(
        self, part: str, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint of `part`: "" for the run itself, or the name of a specialist."""
        taken = [key for key in checkpoint.RESERVED if key in state]
        if taken or step < 0:
            raise BadInput(
                "expected a step of at least 0, and a state without reserved keys",
                got=f"step {step}, keys {shorten(taken) or 'none'}",
            )
        strict_json(state)  # fails before anything is written
        with self.writing(f"the checkpoint of step {step}"):
            metrics = self._open_metrics()
            os.fsync(metrics.fileno())
            size = metrics.seek(0, os.SEEK_END)
            place = self._place(part)
            return checkpoint.save(place, step, tensors, {"metrics_bytes": size, **state})

    def last(self, part: str = "") -> Saved | None:
        """Return the newest intact checkpoint; print a line for each damaged one that is newer."""
        return checkpoint.last(self._place(part))

    def at(self, part: str, step: int) -> Saved:
        """Return the checkpoint of one step."""
        available = self.steps(part)
        if step not in available:
            raise BadInput(
                f"no checkpoint of this step in {self._place(part)}",
                got=f"step {step}",
                available=available,
            )
        return checkpoint.read(self._place(part), step)

    def steps(self, part: str = "") -> list[int]:
        """Return the steps that have a checkpoint, in rising order."""
        return checkpoint.steps(self._place(part))

    def rewind(self, saved: Saved | None) -> None:
        """Remove the lines of metrics.jsonl after a checkpoint; all lines for None."""
        step, size = (saved.step, saved.state["metrics_bytes"]) if saved else (0, 0)
        with self.writing(METRICS):
            file = self._open_metrics()
            available = file.seek(0, os.SEEK_END)
            if available < size:
                say(f"{self.path / METRICS} lacks lines from before step {step}")
            file.truncate(min(available, size))

    def prune(self, part: str, keep: int, also: Collection[int] = ()) -> None:
        """Keep the last `keep` checkpoints, those of the steps `also`, and at least one intact."""
        with self.writing("the list of checkpoints"):
            checkpoint.prune(self._place(part), keep, also)

    def write(self, name: str, document: Mapping[str, Any] | str) -> Path:
        """Write or replace a file of the run, text or JSON."""
        path = self.path / name
        text = document if isinstance(document, str) else strict_json(document, indent=2) + "\n"
        with self.writing(name):
            write_atomic(path, text)
        return path

    def finish(self, scores: Mapping[str, Any]) -> Path:
        """Write scores.json, which marks the run as finished."""
        with self.writing(METRICS):
            os.fsync(self._open_metrics().fileno())
        return self.write(SCORES, scores)

    @property
    def finished(self) -> bool:
        """Whether the run has its scores."""
        return (self.path / SCORES).exists()

    def _place(self, part: str) -> Path:
        if not PART.fullmatch(part):
            raise BadInput("expected a name of a-z, 0-9, - and _ for a part of a run", got=part)
        return self.path / CHECKPOINTS / part

    def _places(self) -> list[Path]:
        top = self.path / CHECKPOINTS
        inner = sorted(top.iterdir()) if top.is_dir() else []
        return [top, *(path for path in inner if path.is_dir() and PART.fullmatch(path.name))]

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn an OSError of the block into a `Failed` that names the command to continue with."""
        try:
            yield
        except OSError as error:
            full = error.errno in DISK_FULL
            reason = "the disk is full" if full else error.strerror or str(error)
            raise Failed(
                f"cannot write {what}: {reason}; finished files in {self.path} are intact",
                try_=f"{'free some space' if full else 'solve this'}, then {self.command}",
            ) from error

    def close(self) -> None:
        """Release the lock."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # the message of `Failed` names the command that continues the run
        nothing = kind is not None and not issubclass(kind, Failed) and self._is_empty()
        if nothing:
            self._remove_begun()
            with suppress(OSError):  # on Windows, releasing the lock removes its file
                # before the release: later, it could be the lock of another process
                (self.path / LOCK).unlink(missing_ok=True)
        self.close()
        if nothing:
            with suppress(OSError):
                for folder in self._created:
                    folder.rmdir()  # fails if it is not empty

    def _is_empty(self) -> bool:
        """Return whether this object started the run, and has no progress in it."""
        if not (self._begun and self.path.is_dir()):
            return False
        names = {path.name for path in self.path.iterdir() if not IGNORED.fullmatch(path.name)}
        metrics = self.path / METRICS
        saved = not names <= {*BEGUN} or (metrics.exists() and metrics.stat().st_size > 0)
        return not saved

    def _remove_begun(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        for name in BEGUN:
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)


def check_place(folder: Path, *, touch: bool = True) -> None:
    """Raise BadInput for a place that a run cannot be written to, such as a folder of images.

    Args:
        touch: Whether something may be created there, and removed again, to find out.
    """
    if (folder / RECIPE).exists():
        check_writable(folder, touch=touch)
    else:
        check_folder(folder, "a run", lambda _: False, touch=touch)


def shell(path: Path | str) -> str:
    """Quote a path for the user's shell."""
    return shlex.quote(str(path)) if os.name != "nt" else f'"{path}"'
