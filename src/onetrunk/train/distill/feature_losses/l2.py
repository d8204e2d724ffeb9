"""l2: the squared distance of normalized features (Li, Liu & Bilen 2022, dense prediction).

    ℓ = mean over rows ‖a/‖a‖ − t/‖t‖‖²

for the student's aligned features a and the teacher's t. A row is an image, or a pixel of a map.
The lengths of a and t have no influence.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_losses import FeatureLoss, pixel_rows

EPS = 1e-6  # smallest length that rows are divided by


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare features of equal shape, (B, C) or (B, C, h, w); the result is between 0 and 4."""
    a = F.normalize(pixel_rows(student), dim=1, eps=EPS)
    t = F.normalize(pixel_rows(teacher), dim=1, eps=EPS)
    return (a - t).square().sum(1).mean()


FEATURE_LOSS = FeatureLoss(l2)
