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


def error_line(ran: Ran, code: int = 2) -> str:
    """Check that a command failed with one line of error, after notes; return the error."""
    assert ran.code == code
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ran.err.strip().endswith(errors[0]), ran.err
    return errors[0]


def one_line(ran: Ran, code: int = 2) -> str:
    """Check that a command failed with one line of error; return it."""
    assert ran.code == code
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("error: ")
    return ran.err.strip()
