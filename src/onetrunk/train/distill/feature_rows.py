"""Features as rows: what the feature losses compare."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rows(features: Tensor) -> Tensor:
    """(B, C) as it is; of maps (B, C, h, w) every pixel is a row: (B·h·w, C)."""
    if features.ndim == 2:
        return features
    return features.flatten(2).transpose(1, 2).reshape(-1, features.shape[1])


def means(features: Tensor) -> Tensor:
    """A row for each image: of maps the mean over their pixels."""
    return features if features.ndim == 2 else features.flatten(2).mean(2)


def meet(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one form: maps at the teacher's size, or a row for each image where one is a row."""
    if student.ndim != teacher.ndim:
        return means(student), means(teacher)
    if student.shape[2:] != teacher.shape[2:]:
        size = teacher.shape[2:]
        student = F.interpolate(student, size=size, mode="bilinear", align_corners=False)
    return student, teacher
