"""Recognize folders that onetrunk has written, so that they are not read as images."""

from __future__ import annotations

import os
from pathlib import Path

from onetrunk.store.places import MARK
from onetrunk.store.run_folder import CHECKPOINTS, METRICS, RECIPE, SCORES

# a folder with a recipe and one of these is a run; a recipe alone may lie beside a user's images
OF_RUNS = (METRICS, SCORES, CHECKPOINTS, "environment.json", "model")
BESIDE = (".html", ".json", ".toml", ".lock", ".csv")  # files beside runs: reports, sweeps, …
DEPTH = 4  # of folders with runs in them, such as OUT/METHOD/seed-S/NAME


def is_results(folder: Path, depth: int = DEPTH) -> bool:
    """Return whether a folder is a run or marked, or holds only folders of that kind."""
    if (folder / MARK).is_file():
        return True
    if (folder / RECIPE).is_file():
        return any((folder / name).exists() for name in OF_RUNS)
    if depth == 0:
        return False
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not is_results(Path(entry.path), depth - 1):
                        return False
                    found = True
                elif not entry.name.endswith(BESIDE):
                    return False
    except OSError:
        return False
    return found
