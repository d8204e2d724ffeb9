"""Points: where in a network features are looked at, by names that hold for every trunk.

| point | features |
|---|---|
| `pooled` | (B, C): what heads of whole images read |
| `bottleneck` | (B, C, h, w): the trunk's coarsest map |
| `decoded` | (B, C, h, w): the domain's decoder's map, which dense heads read |
| a stage's name | (B, C, h, w): the map that leaves this stage, where the trunk has one for each |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor

from onetrunk.errors import BadInput

if TYPE_CHECKING:
    from onetrunk.nn.trunk import Trunk

POOLED, BOTTLENECK, DECODED = "pooled", "bottleneck", "decoded"
Points = Mapping[str, Iterable[str]]  # by domain
NOWHERE: Points = MappingProxyType({})


@dataclass(frozen=True)
class Inside:
    """What a network answers to a batch, by task, and its features, by point."""

    predictions: dict[str, Tensor]
    features: dict[str, Tensor]


def point_names(trunk: Trunk, dense: bool = True) -> tuple[str, ...]:
    """All points of a network with this trunk; `dense`: with a decoder on it."""
    stages = trunk.stages if len(trunk.stages) == len(trunk.reductions) else ()
    return (POOLED, BOTTLENECK, *((DECODED,) if dense else ()), *stages)


def level_of(trunk: Trunk, point: str) -> tuple[int, ...]:
    """The map of the pyramid that lies at this point; none at `pooled` and `decoded`."""
    if point in (POOLED, DECODED):
        return ()
    if point == BOTTLENECK:
        coarsest = max(trunk.reductions)
        return (max(i for i, r in enumerate(trunk.reductions) if r == coarsest),)
    if point not in point_names(trunk):
        raise BadInput(f"{trunk.arch} has no such point", got=point, available=point_names(trunk))
    return (trunk.stages.index(point),)


def at(
    trunk: Trunk,
    points: Iterable[str],
    pooled_BC: Tensor | None,
    maps: Mapping[int, Tensor],
    decoded_BCHW: Tensor | None,
) -> dict[str, Tensor]:
    """The features at these points, of what a pass computed."""
    found: dict[str, Tensor] = {}
    for point in points:
        (level,) = level_of(trunk, point) or (None,)
        features = {POOLED: pooled_BC, DECODED: decoded_BCHW}.get(point)
        features = maps[level] if level is not None else features
        if features is None:
            raise BadInput(
                f"this domain has no features at {point!r}: it has no dense task",
                available=point_names(trunk, dense=False),
            )
        found[point] = features
    return found
