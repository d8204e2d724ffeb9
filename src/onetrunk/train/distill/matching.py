"""Matching of the student's feature points with the teacher's."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from onetrunk.config.distill import Distill
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, shorten
from onetrunk.nn.feature_points import BOTTLENECK, DECODED, POOLED
from onetrunk.train.distill.feature_losses import image_rows
from onetrunk.train.distill.teachers import Teacher

Pairs = tuple[tuple[str, str], ...]  # (student's point, teacher's point)

# By point of the student: the teacher's points that it can be compared with, best first. Both dense
# points are compared with the decoded map (Li et al.). Any other point is compared with the
# teacher's point of the same name.
CANDIDATES: Mapping[str, tuple[str, ...]] = {
    BOTTLENECK: (DECODED, BOTTLENECK, POOLED),
    DECODED: (DECODED, BOTTLENECK, POOLED),
    POOLED: (POOLED, BOTTLENECK),
}


def match_features(
    domain: Domain, teacher: Teacher, distill: Distill, student_widths: Mapping[str, int]
) -> Pairs:
    """Return the pairs of points whose features are compared.

    They are empty for `features = "none"` and for a teacher that has only predictions.

    Args:
        student_widths: Number of channels of the student's features, by point.
    """
    if distill.features == "none" or not teacher.widths:
        return ()
    points = distill.feature_layers or default_points(domain, teacher)
    for point in points:
        if point not in student_widths:
            raise BadInput(
                f"distill.feature_layers: the network of {domain.name} has no such feature point",
                got=point,
                available=student_widths,
            )
    matches = {point: teacher_point(point, teacher.widths) for point in points}
    if missing := [point for point, match in matches.items() if match is None]:
        raise BadInput(
            f"teacher {teacher.name}: it has no features that match these points of {domain.name}",
            got=shorten(missing),
            available=teacher.widths,
            try_='distill.feature_layers = [a point that both have], or features = "none"',
        )
    return tuple((point, match) for point in points if (match := matches[point]))


def default_points(domain: Domain, teacher: Teacher) -> tuple[str, ...]:
    """Return the points that the heads of the teacher's tasks read (Li, Liu & Bilen 2022)."""
    dense = [task.dense for task in domain.tasks if task.name in teacher.tasks]
    pooled = () if all(dense) else (POOLED,)
    return (*pooled, *((BOTTLENECK, DECODED) if any(dense) else ()))


def teacher_point(point: str, teacher_widths: Mapping[str, int]) -> str | None:
    """Return the teacher's point that is compared with a student's point, if there is one."""
    candidates = CANDIDATES.get(point, (point,))
    return next((name for name in candidates if name in teacher_widths), None)


def to_common_shape(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both features in one form.

    Maps are resized to the teacher's size. If only one of the two is a map, it is averaged over
    pixels.
    """
    if student.ndim != teacher.ndim:
        return image_rows(student), image_rows(teacher)
    if student.shape[2:] != teacher.shape[2:]:
        size = teacher.shape[2:]
        student = F.interpolate(student, size=size, mode="bilinear", align_corners=False)
    return student, teacher
