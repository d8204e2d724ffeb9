"""Recognize the folders that onetrunk has written: results are no images, and runs have a model."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from onetrunk.errors import BadInput
from onetrunk.store.places import MARK
from onetrunk.store.run_folder import CHECKPOINTS, METRICS, RECIPE, SCORES, shell

# a folder with a recipe and one of these is a run; a recipe alone may lie beside a user's images
MODEL = "model"
OF_RUNS = (METRICS, SCORES, CHECKPOINTS, "environment.json", MODEL)
BESIDE = (".html", ".json", ".toml", ".lock", ".csv")  # files beside runs: reports, sweeps, …
DEPTH = 4  # of folders with runs in them, such as OUT/METHOD/seed-S/NAME


def is_results(folder: Path, depth: int = DEPTH) -> bool:
    """Return whether a folder is a run or marked, or holds only folders of that kind."""
    if (folder / MARK).is_file():
        return True
    if (folder / RECIPE).is_file():
        return is_run(folder)
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


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, finished or not, or one with a saved model."""
    if (folder / RECIPE).is_file():
        return any((folder / name).exists() for name in OF_RUNS)
    return (folder / MODEL).is_dir()


def no_model(folder: Path) -> BadInput:
    """Return the error for a folder without a model: an unfinished run, another folder, or none."""
    if not (folder / MODEL).is_dir() and is_run(folder):
        return BadInput(
            f"the run {folder} is unfinished and has no model yet",
            try_=f"onetrunk train {shell(folder / RECIPE)} --resume",
        )
    near, runs = folder if folder.is_dir() else folder.parent, []
    with suppress(OSError):  # a folder that cannot be read
        runs = sorted(str(p) for p in near.iterdir() if is_run(p))
    if not os.path.lexists(folder):
        problem = f"the folder {folder} does not exist"
    elif not folder.is_dir():
        problem = f"expected the folder of a run, and {folder} is a file"
    else:
        problem = f"no model in {folder}"
    return BadInput(
        problem,
        got=str(folder),
        available=runs,
        try_=None if runs else "onetrunk train RECIPE, or onetrunk.save(model, folder), writes one",
    )
