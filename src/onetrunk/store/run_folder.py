"""The folder of one training: recipe, metrics, checkpoints, scores; one writer at a time."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from onetrunk.errors import BadInput, Failed, printable
from onetrunk.progress import say
from onetrunk.store import checkpoint
from onetrunk.store.atomic import write_atomic
from onetrunk.store.checkpoint import Saved
from onetrunk.store.differ import differ
from onetrunk.store.strict_json import nulls, strict_json

__all__ = ["RunFolder", "Saved"]

RECIPE, METRICS, SCORES, LOCK = "recipe.toml", "metrics.jsonl", "scores.json", ".lock"
CHECKPOINTS = "checkpoints"
PART = re.compile(r"|[a-z0-9][a-z0-9_-]{0,63}")
FULL = (errno.ENOSPC, errno.EDQUOT)
# what does not make a folder another's: our lock, a recipe whose writer was killed, a desktop's own
EMPTY = re.compile(r"\.lock|\.recipe\.toml\..*|\.DS_Store|desktop\.ini|Thumbs\.db")

LEFT = re.compile(r"\.[a-z_-]+\.(toml|json|safetensors|html|csv)\.[0-9a-f]{8}")  # of store.atomic
ASIDE = re.compile(r"\.([a-z]+)\.[0-9]+\.(part|old)")  # of model.saved


class RunFolder:
    """`with RunFolder.open("runs/shop", text, resume=True) as run: …`"""

    def __init__(self, path: Path, lock: FileLock, again: str | None = None) -> None:
        """`again`: the command that goes on; by default the training's own."""
        self.path = path
        self.again = again or f"onetrunk train {shell(path / RECIPE)} --resume"
        # of two recipes the folder's own goes on with its file; a command says the other one
        self._instead = (
            f"another `out`, or {self.again}" if again is None else f"remove {shell(path)}"
        )
        self._lock = lock
        self._metrics: FileIO | None = None

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        recipe: str,
        *,
        resume: bool = False,
        again: str | None = None,
    ) -> RunFolder:
        """Start a run, or go on with one that has the same recipe; others are refused."""
        place = Path(path)
        _refuse_foreign(place)
        run = cls._locked(place, again, "wait for its end, or give this run another `out`")
        try:
            run._begin(recipe, resume)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def hold(cls, path: str | PathLike[str], again: str) -> RunFolder:
        """A folder that holds a model, to change what is in it; `again`: the command that does."""
        run = cls._locked(Path(path), again, f"wait for its end, then {again}")
        try:
            with run.writing("the run's folder"):
                run._tidy()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def _locked(cls, place: Path, again: str | None, next: str) -> RunFolder:
        run = cls(place, FileLock(place / LOCK, blocking=False), again)
        with run.writing(f"the run {place}"):
            checkpoint.make_folder(place)
            try:
                run._lock.acquire()
            except Timeout:
                raise BadInput(
                    f"another process is writing to the run {place}", try_=next
                ) from None
        return run

    def _begin(self, recipe: str, resume: bool) -> None:
        to = self.path / RECIPE
        with self.writing("the run's folder"):
            self._tidy()
        if not to.exists():
            _refuse_foreign(self.path)  # once more: now nobody else writes here
            self.write(RECIPE, recipe)
            return
        try:
            there = to.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {to}", got=str(error)[:100]) from None
        if keys := differ(there, recipe):
            shown = "; ".join(keys[:6]) + (f"; … ({len(keys)} in all)" if keys[6:] else "")
            raise BadInput(
                f"{self.path} holds another run: its recipe differs in {shown}",
                try_=self._instead,
            )
        if not resume and self.finished:
            raise BadInput(
                f"the run {self.path} is finished", try_=f"onetrunk eval {shell(self.path)}"
            )
        if not resume:
            step = max((s for place in self._places() for s in checkpoint.steps(place)), default=0)
            raise BadInput(
                f"the run {self.path} is unfinished at step {step}",
                try_=self.again,
            )

    def _tidy(self) -> None:
        """What killed writers left: a folder that stood aside comes back, the rest goes."""
        for path in list(self.path.iterdir()):
            aside = ASIDE.fullmatch(path.name)
            if aside and aside[2] == "old" and not (self.path / aside[1]).exists():
                os.rename(path, self.path / aside[1])
            elif aside:
                shutil.rmtree(path, ignore_errors=True)
            elif LEFT.fullmatch(path.name):
                path.unlink()
        for place in self._places():
            checkpoint.tidy(place)

    def log(self, record: Mapping[str, Any]) -> None:
        """One line more in metrics.jsonl, in one write; a number that is not finite is null."""
        line = strict_json(nulls(record)).encode() + b"\n"
        with self.writing(METRICS):
            file = self._open_metrics()
            before = file.seek(0, os.SEEK_END)
            try:
                done = 0
                while done < len(line):  # a disk that fills takes a part of it
                    done += file.write(line[done:])
            except OSError:
                file.truncate(before)
                raise

    def _open_metrics(self) -> FileIO:
        if self._metrics is None:  # unbuffered: a line is with the system when `log` returns
            self._metrics = (self.path / METRICS).open("ab", buffering=0)
        return self._metrics

    def save(
        self, part: str, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """A checkpoint of `part` ("" or a specialist's name): whole or not there."""
        taken = [key for key in checkpoint.OURS if key in state]
        if taken or step < 0:
            raise BadInput("a state needs other keys, and a step that is not negative", got=taken)
        strict_json(state)  # before anything is written
        with self.writing(f"the checkpoint of step {step}"):
            metrics = self._open_metrics()
            os.fsync(metrics.fileno())
            size = metrics.seek(0, os.SEEK_END)
            place = self._place(part)
            return checkpoint.save(place, step, tensors, {"metrics_bytes": size, **state})

    def last(self, part: str = "") -> Saved | None:
        """The newest whole checkpoint; damaged ones that are newer are named in a line each."""
        return checkpoint.last(self._place(part))

    def at(self, part: str, step: int) -> Saved:
        """The checkpoint of one step."""
        there = self.steps(part)
        if step not in there:
            raise BadInput(
                f"no checkpoint in {self._place(part)}",
                got=f"step {step}",
                available=map(str, there),
            )
        return checkpoint.read(self._place(part), step)

    def steps(self, part: str = "") -> list[int]:
        """Steps that have a checkpoint, rising."""
        return checkpoint.steps(self._place(part))

    def rewind(self, saved: Saved | None) -> None:
        """Cut the lines of metrics.jsonl that came after a checkpoint; None: all of them."""
        step, to = (saved.step, saved.state["metrics_bytes"]) if saved else (0, 0)
        with self.writing(METRICS):
            file = self._open_metrics()
            size = file.seek(0, os.SEEK_END)
            if size < to:
                say(f"{self.path / METRICS} was cut: it lacks lines from before step {step}")
            file.truncate(min(size, to))

    def prune(self, part: str, keep: int, also: Collection[int] = ()) -> None:
        """Keep the last `keep` checkpoints and those of the steps `also`; never lose the only
        whole one."""
        with self.writing("the list of checkpoints"):
            checkpoint.prune(self._place(part), keep, also)

    def write(self, name: str, document: Mapping[str, Any] | str) -> Path:
        """A file of the run, text or JSON, in place of the one that is there."""
        to = self.path / name
        text = document if isinstance(document, str) else strict_json(document, indent=2) + "\n"
        with self.writing(name):
            write_atomic(to, text)
        return to

    def finish(self, scores: Mapping[str, Any]) -> Path:
        """Write scores.json, last of all: the run is finished."""
        with self.writing(METRICS):
            os.fsync(self._open_metrics().fileno())
        return self.write(SCORES, scores)

    @property
    def finished(self) -> bool:
        """A run is finished when it has its scores."""
        return (self.path / SCORES).exists()

    def _place(self, part: str) -> Path:
        if not PART.fullmatch(part):
            raise BadInput("a part of a run is named as a domain is: a-z, 0-9, - and _", got=part)
        return self.path / CHECKPOINTS / part

    def _places(self) -> list[Path]:
        top = self.path / CHECKPOINTS
        inner = sorted(top.iterdir()) if top.is_dir() else []
        return [top, *(path for path in inner if path.is_dir() and PART.fullmatch(path.name))]

    def writing(self, what: str) -> AbstractContextManager[None]:
        """Around others' writes into this folder: what the system refuses is said in our words."""
        return _writing(self.path, what, self.again)

    def close(self) -> None:
        """Let others write here."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def _writing(run: Path, what: str, again: str) -> Iterator[None]:
    """What the system refuses, in one line that says how to go on."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno in FULL else error.strerror or str(error)
        raise Failed(
            printable(
                f"cannot write {what}: {why}; what was finished in {run} is intact; try: "
                f"{'free some space' if error.errno in FULL else 'repair that'}, then {again}"
            )
        ) from error


def _refuse_foreign(place: Path) -> None:
    """A folder of other things is not for us; a file in its place neither."""
    if place.exists() and not place.is_dir():
        raise BadInput(f"a run is a folder, {place} is a file", try_="another `out`")
    if not place.exists() or (place / RECIPE).exists():
        return
    others = sorted(p.name for p in place.iterdir() if not EMPTY.fullmatch(p.name))
    if others:
        raise BadInput(
            f"{place} is not a run, and not empty: it has no {RECIPE}",
            available=others,
            try_="another `out`, or an empty folder",
        )


def shell(path: Path | str) -> str:
    """A path as a user's shell takes it."""
    return shlex.quote(str(path)) if os.name != "nt" else f'"{path}"'
