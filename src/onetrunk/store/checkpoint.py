"""Checkpoints: folders `step-N` with tensors and state, each whole or not there.

A checkpoint is written into a folder beside its place (`.step-N.XXXX.part`), synced, and renamed.
One that is replaced stands aside as `.step-N.old` until the new one is in its place, and one that
is removed is renamed first: at no instant does half a checkpoint carry a checkpoint's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.progress import say
from onetrunk.store.atomic import sync_folder
from onetrunk.store.strict_json import strict_json
from onetrunk.store.tensors import read_tensors, write_tensors

FORMAT = 1
TENSORS, STATE = "tensors.safetensors", "state.json"
OURS = ("format", "step", "sha256", "metrics_bytes")  # keys that the store adds to a state
STEP = re.compile(r"step-(0|[1-9][0-9]*)")
LEFT = re.compile(r"\.step-[0-9]+\.[0-9a-f]+\.(part|gone)")  # what killed writes leave behind
ASIDE = re.compile(r"\.(step-[0-9]+)\.old")


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint; `state` is what was given to `save`, and `metrics_bytes`."""

    step: int
    path: Path
    state: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU."""
        return read_tensors(self.path / TENSORS)


def save(place: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write `place`/step-N; one that is there already is replaced, and back if that fails."""
    to = place / f"step-{step}"
    part = place / f".step-{step}.{secrets.token_hex(4)}.part"
    try:
        make_folder(place)
        part.mkdir()
        with (part / TENSORS).open("xb") as file:
            sha256 = write_tensors(file, tensors)
            file.flush()
            os.fsync(file.fileno())
        text = strict_json({"format": FORMAT, "step": step, "sha256": sha256, **state})
        with (part / STATE).open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(part)
        _move(part, to)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return to


def _move(part: Path, to: Path) -> None:
    """A folder into its place. No system renames over a folder that holds files."""
    old = to.with_name(f".{to.name}.old")
    if to.exists():
        remove(old)
        os.rename(to, old)
    try:
        os.rename(part, to)
    except BaseException:
        if old.exists() and not to.exists():
            os.rename(old, to)
        raise
    sync_folder(to.parent)
    remove(old)


def make_folder(place: Path) -> None:
    """The folder and those above it, each known to its parent after a power cut too."""
    new = [folder for folder in (place, *place.parents) if not folder.exists()]
    if new:
        place.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync_folder(folder.parent)


def digest(folder: Path) -> str:
    """Of the tensors' file: a checkpoint that came back wrong from the disk is known."""
    with (folder / TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(place: Path, step: int) -> Saved:
    """The checkpoint of a step, refused if it is not what was written."""
    path = place / f"step-{step}"
    what = f"the checkpoint {path} is damaged"
    try:
        state = json.loads((path / STATE).read_bytes())
        if not isinstance(state, dict) or any(key not in state for key in OURS):
            raise BadInput(what, got=f"a {STATE} that lacks some of {', '.join(OURS)}")
        if state.pop("format") != FORMAT:
            raise BadInput(
                f"{path}: this version reads checkpoints of format {FORMAT}",
                got="another one",
                try_="pip install --upgrade onetrunk",
            )
        if state.pop("sha256") != digest(path) or state.pop("step") != step:
            raise BadInput(what, got="tensors that were not written with its state")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(what, got=str(error)[:100]) from None
    return Saved(step, path, state)


def steps(place: Path) -> list[int]:
    """Steps that have a checkpoint, rising; whether it is whole is not looked at."""
    if not place.is_dir():
        return []
    found = [match for path in place.iterdir() if (match := STEP.fullmatch(path.name))]
    # a specialist may be named "step-5": its folder holds folders, a checkpoint holds files
    return sorted(int(m[1]) for m in found if not any(p.is_dir() for p in (place / m[0]).iterdir()))


def last(place: Path) -> Saved | None:
    """The newest whole checkpoint; damaged ones that are newer are named."""
    for step in reversed(steps(place)):
        try:
            return read(place, step)
        except OnetrunkError as error:
            say(f"{error}; the one before it is taken")
    return None


def prune(place: Path, keep: int, also: Collection[int]) -> None:
    """Keep the last `keep` and those of `also`, and a whole one whatever they are."""
    tidy(place)
    there = steps(place)
    kept = {*there[max(0, len(there) - keep) :], *(step for step in also if step in there)}
    if not any(_whole(place, step) for step in sorted(kept, reverse=True)):
        others = (step for step in reversed(there) if step not in kept)
        kept.update(next(([step] for step in others if _whole(place, step)), []))
    for step in there:
        if step not in kept:
            remove(place / f"step-{step}")


def _whole(place: Path, step: int) -> bool:
    try:
        read(place, step)
    except OnetrunkError:
        return False
    return True


def remove(folder: Path) -> None:
    """Under another name first, so that what is half removed is never taken for a checkpoint."""
    if folder.exists():
        gone = folder.with_name(
            f".{folder.name.strip('.').split('.')[0]}.{secrets.token_hex(4)}.gone"
        )
        os.rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def tidy(place: Path) -> None:
    """What killed writes left: a checkpoint that stood aside comes back, the rest goes."""
    if not place.is_dir():
        return
    for path in list(place.iterdir()):
        aside = ASIDE.fullmatch(path.name)
        if aside and not (place / aside[1]).exists():
            os.rename(path, place / aside[1])
        elif aside:
            remove(path)
        elif LEFT.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
