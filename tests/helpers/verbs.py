"""Helpers for the tests of commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def photos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(image).save(root / name / f"{i:03}.png")
    return root


def one_line(ran: Ran, code: int = 2) -> str:
    """Check that a command failed with one line of error; return it."""
    assert ran.code == code
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("error: ")
    return ran.err.strip()
