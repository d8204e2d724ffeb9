"""l2: the distance of directions (Li, Liu & Bilen 2022, dense prediction).

    ℓ = mean over rows ‖a/‖a‖ − t/‖t‖‖², a the aligned student's features, t the teacher's;

a row is an image, of maps a pixel. Both lengths are free: only directions are taught.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_rows import rows

EPS = 1e-6  # rows shorter than this have no direction


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Features (B, C) or (B, C, h, w) of one shape to a scalar, 0 to 4."""
    a = F.normalize(rows(student), dim=1, eps=EPS)
    t = F.normalize(rows(teacher), dim=1, eps=EPS)
    return (a - t).square().sum(1).mean()
