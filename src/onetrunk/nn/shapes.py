"""The shapes of what a trunk hands to heads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What a trunk makes of an image: pooled features, and a pyramid of (channels, reduction).

    `decoded`: the last map is a decoder's, which dense heads read as it is.
    """

    features: int
    pyramid: tuple[tuple[int, int], ...]
    decoded: bool = False
