"""Pairs: which of a student's features are held against which of a teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onetrunk.config.distill import Distill
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.feature_points import BOTTLENECK, DECODED, POOLED

if TYPE_CHECKING:
    from onetrunk.train.distill.teachers import Teacher

Pairs = tuple[tuple[str, str], ...]  # (student's point, teacher's point)


def pairs_of(
    domain: Domain, teacher: Teacher, distill: Distill, inside: Mapping[str, int]
) -> Pairs:
    """Those of one teacher; `inside`: the student's points with their channels.

    A teacher without any features teaches its answers alone.
    """
    if distill.features == "none" or not teacher.widths:
        return ()
    points = distill.feature_layers or usual(domain, teacher)
    for point in points:
        if point not in inside:
            raise BadInput(
                f"distill.feature_layers: {domain.name} has no features at this point",
                got=point,
                available=inside,
            )
    found = [(point, theirs) for point in points if (theirs := aim(point, teacher.widths))]
    lacking = [point for point in points if aim(point, teacher.widths) is None]
    if lacking:
        raise BadInput(
            f"teacher {teacher.name}: {domain.name}: it has no features to hold against",
            got=", ".join(lacking),
            available=teacher.widths,
            try_='distill.feature_layers = [a point of both], or features = "none"',
        )
    return tuple(found)


def usual(domain: Domain, teacher: Teacher) -> tuple[str, ...]:
    """What the tasks that it teaches read (Li, Liu & Bilen 2022)."""
    dense = [task.dense for task in domain.tasks if task.name in teacher.tasks]
    pooled = () if all(dense) else (POOLED,)
    return (*pooled, *((BOTTLENECK, DECODED) if any(dense) else ()))


def aim(point: str, theirs: Mapping[str, int]) -> str | None:
    """The teacher's point that the student's is held against: dense ones against its decoded map
    (Li et al.: both of them), pooled ones against a map's mean where it has no others, any other
    against the same; None where the teacher has none."""
    wanted = {
        BOTTLENECK: (DECODED, BOTTLENECK, POOLED),
        DECODED: (DECODED, BOTTLENECK, POOLED),
        POOLED: (POOLED, BOTTLENECK),
    }
    return next((name for name in wanted.get(point, (point,)) if name in theirs), None)
