"""Aligners by name: the maps from student to teacher features, which are dropped after training.

Each public file of this package is one aligner, a module that it binds to `ALIGNER`. A user's
aligner, "package.module:thing", is made by `thing(student, teacher)` with the numbers of channels
of the two features. It maps rows (B, student) to (B, teacher), and maps (B, student, h, w) to
(B, teacher, h, w).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.registry import Registry

ALIGNERS = Registry[Callable[[int, int], nn.Module]](__name__, "aligner")


def make_aligner(name: str, student: int, teacher: int) -> nn.Module:
    """Return a new aligner.

    Args:
        name: A name in ALIGNERS, or "package.module:thing".
        student: The number of the student's channels.
        teacher: The number of the teacher's channels.
    """
    aligner = ALIGNERS.load(name)(student, teacher)
    if not isinstance(aligner, nn.Module):
        raise BadInput(f"aligner {name}: expected a module", got=type(aligner).__name__)
    if name not in ALIGNERS:
        _check(aligner, name, student, teacher)
    return aligner


@torch.no_grad()
def _check(aligner: nn.Module, name: str, student: int, teacher: int) -> None:
    """Raise BadInput if a user's aligner does not map rows and maps to the teacher's width."""
    for rest in ((), (2, 2)):
        given, expected = (3, student, *rest), (3, teacher, *rest)
        try:
            got: object = tuple(aligner(torch.zeros(given)).shape)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            got = f"{type(error).__name__}: {error}"[:160]
        if got != expected:
            raise BadInput(f"aligner {name}: expected {expected} from {given}", got=str(got))
