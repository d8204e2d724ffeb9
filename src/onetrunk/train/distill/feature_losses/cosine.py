"""cosine: cosine distance and smooth L1 distance (Ranzinger et al. 2024, AM-RADIO: 0.9 and 0.1).

    ℓ = mean over rows [ 0.9·(1 − cos(a, t)) + 0.1·mean over channels smooth-L1(a − t) ]

for the student's aligned features a and the teacher's t. The teacher's features are standardized
per channel, so that no channel dominates.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_losses import FeatureLoss, pixel_rows

COSINE_WEIGHT, L1_WEIGHT = 0.9, 0.1


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare features of equal shape, (B, C) or (B, C, h, w); the teacher's are standardized."""
    a, t = pixel_rows(student), pixel_rows(teacher)
    distance = (1 - F.cosine_similarity(a, t, dim=1, eps=1e-6)).mean()
    return COSINE_WEIGHT * distance + L1_WEIGHT * F.smooth_l1_loss(a, t)


FEATURE_LOSS = FeatureLoss(cosine, standardize=True)
