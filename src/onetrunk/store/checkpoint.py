"""Checkpoints: folders `step-N` that hold tensors and a state, each complete or absent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from onetrunk.errors import BadInput, OnetrunkError
from onetrunk.progress import say
from onetrunk.store.atomic import atomic_folder, clear_leftovers, remove_folder
from onetrunk.store.strict_json import strict_json
from onetrunk.store.tensors import read_tensors, write_tensors

FORMAT = 2
TENSORS, STATE = "tensors.safetensors", "state.json"
RESERVED = ("format", "step", "sha256", "metrics_bytes")  # keys that the store adds to a state
STEP = re.compile(r"step-(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Saved:
    """An intact checkpoint."""

    step: int
    path: Path
    state: dict[str, Any]  # as it was passed to `save`

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, on the CPU."""
        return read_tensors(self.path / TENSORS)


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write or replace `folder`/step-N."""
    path = folder / f"step-{step}"
    with atomic_folder(path) as part:
        with (part / TENSORS).open("xb") as file:
            sha256 = write_tensors(file, tensors)
        text = strict_json({"format": FORMAT, "step": step, "sha256": sha256, **state})
        with (part / STATE).open("xb") as file:
            file.write(text.encode())
    return path


def read(folder: Path, step: int) -> Saved:
    """Read the checkpoint of a step; raise BadInput if it is damaged."""
    path = folder / f"step-{step}"
    damaged = f"the checkpoint {path} is damaged"
    try:
        state = json.loads((path / STATE).read_bytes())
        if not isinstance(state, dict) or any(key not in state for key in RESERVED):
            raise BadInput(damaged, got=f"a {STATE} without some of {', '.join(RESERVED)}")
        if (format_ := state.pop("format")) != FORMAT:
            raise BadInput(
                f"{path}: this version reads checkpoints of format {FORMAT}",
                got=str(format_),
                try_="pip install --upgrade onetrunk",
            )
        if state.pop("sha256") != _digest(path) or state.pop("step") != step:
            raise BadInput(damaged, got="tensors that were not written together with its state")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(damaged, got=str(error)[:100]) from None
    return Saved(step, path, state)


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, intact or not, in rising order."""
    if not folder.is_dir():
        return []
    matches = [match for path in folder.iterdir() if (match := STEP.fullmatch(path.name))]
    # a specialist may be named "step-5": its folder holds folders, a checkpoint holds files
    return sorted(
        int(m[1]) for m in matches if not any(p.is_dir() for p in (folder / m[0]).iterdir())
    )


def last(folder: Path) -> Saved | None:
    """Return the newest intact checkpoint; print a line for each damaged one that is newer."""
    for step in reversed(steps(folder)):
        try:
            return read(folder, step)
        except OnetrunkError as error:
            say(f"{error}; using the checkpoint before it")
    return None


def prune(folder: Path, keep: int, also: Collection[int]) -> None:
    """Keep the last `keep` checkpoints, those of the steps `also`, and at least one intact one."""
    tidy(folder)
    available = steps(folder)
    kept = {*available[max(0, len(available) - keep) :], *(s for s in also if s in available)}
    if not any(_intact(folder, step) for step in sorted(kept, reverse=True)):
        others = (step for step in reversed(available) if step not in kept)
        kept.update(next(([step] for step in others if _intact(folder, step)), []))
    for step in available:
        if step not in kept:
            remove_folder(folder / f"step-{step}")


def tidy(folder: Path) -> None:
    """Remove what killed writers of checkpoints left."""
    clear_leftovers(folder, STEP)


def _intact(folder: Path, step: int) -> bool:
    try:
        read(folder, step)
    except OnetrunkError:
        return False
    return True


def _digest(folder: Path) -> str:
    with (folder / TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
