"""Named points of a network where features are read; the names are the same for all trunks.

| point | features |
|---|---|
| `pooled` | (B, C): the input of the heads of whole-image tasks |
| `bottleneck` | (B, C, h, w): the trunk's coarsest map |
| `decoded` | (B, C, h, w): the map of the domain's decoder, the input of dense heads |
| a stage's name | (B, C, h, w): the output of this stage, if the trunk has a map for each |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.nn.trunk import Trunk

POOLED, BOTTLENECK, DECODED = "pooled", "bottleneck", "decoded"
Points = Mapping[str, Iterable[str]]  # by domain
Predictions = dict[str, Tensor]  # by task
NO_POINTS: Points = MappingProxyType({})


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for a batch: predictions by task, and features by point."""

    predictions: Predictions
    features: dict[str, Tensor]


def point_names(trunk: Trunk, dense: bool = True) -> tuple[str, ...]:
    """Return all points of a network with this trunk; `dense`: with a decoder on it."""
    stages = trunk.stages if len(trunk.stages) == len(trunk.reductions) else ()
    return (POOLED, BOTTLENECK, *((DECODED,) if dense else ()), *stages)


def level_of(trunk: Trunk, point: str) -> tuple[int, ...]:
    """Return the map of the pyramid at this point; empty for `pooled` and `decoded`."""
    if point in (POOLED, DECODED):
        return ()
    if point == BOTTLENECK:
        coarsest = max(trunk.reductions)
        return (max(i for i, r in enumerate(trunk.reductions) if r == coarsest),)
    if point not in point_names(trunk):
        raise BadInput(f"{trunk.arch} has no such point", got=point, available=point_names(trunk))
    return (trunk.stages.index(point),)


def features_at(
    trunk: Trunk,
    points: Iterable[str],
    pooled_BC: Tensor | None,
    maps: Mapping[int, Tensor],
    decoded_BCHW: Tensor | None,
) -> dict[str, Tensor]:
    """Return the features at these points, from the outputs of a pass."""
    features: dict[str, Tensor] = {}
    for point in points:
        (level,) = level_of(trunk, point) or (None,)
        tensor = {POOLED: pooled_BC, DECODED: decoded_BCHW}.get(point)
        tensor = maps[level] if level is not None else tensor
        if tensor is None:
            raise BadInput(
                "this domain has no dense task, so it has no decoded features",
                got=point,
                available=point_names(trunk, dense=False),
            )
        features[point] = tensor
    return features
