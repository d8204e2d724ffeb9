"""What every built-in trunk says of its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of a trunk: its name, the module that computes it, and the map that leaves it."""

    name: str
    module: str  # the submodule's name
    channels: int
    reduction: int  # input pixels per pixel of the map, along one side
