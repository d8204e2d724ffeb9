"""Run Python programs and onetrunk commands, each in a new process with torch already imported."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATIENCE = 240  # seconds until a program is killed
START_METHODS = multiprocessing.get_all_start_methods()
START: Any = multiprocessing.get_context("forkserver" if "forkserver" in START_METHODS else "spawn")
if "forkserver" in START_METHODS:
    START.set_forkserver_preload(["onetrunk.cli.app", "onetrunk.runs.train"])


def typed(program: str | Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a Python program, or the words of a onetrunk command, in a folder.

    Returns its exit status, and its standard output and errors together.
    """
    printed = folder / ".printed"
    child = START.Process(target=_typed, args=(program, folder, printed))
    child.start()
    child.join(PATIENCE)
    if child.is_alive():
        child.kill()
        child.join()
    text = printed.read_text() if printed.exists() else ""
    printed.unlink(missing_ok=True)
    return (child.exitcode if child.exitcode is not None else -1), text


def _typed(program: str | Sequence[str], folder: Path, printed: Path) -> None:
    os.chdir(folder)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    # as if redirected to a file: there is no terminal
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
    if isinstance(program, str):
        # so that "__main__:Thing" can be loaded
        page = sys.modules["__main__"] = types.ModuleType("__main__")
        sys.path.insert(0, os.getcwd())  # as for a script that lies there
        exec(compile(program, "<page>", "exec"), page.__dict__)
        return
    from onetrunk.cli.app import main

    sys.argv = list(program)
    main()
