"""cosine: direction and size of each row (Ranzinger et al. 2024, AM-RADIO: 0.9 and 0.1).

    ℓ = mean over rows [ 0.9·(1 − cos(a, t)) + 0.1·mean over channels smooth-L1(a − t) ],

on the teacher's features standardised by channel, so that no channel is heard above the others.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_rows import rows

DIRECTION, SIZE = 0.9, 0.1


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Features (B, C) or (B, C, h, w) of one shape, the teacher's standardised, to a scalar."""
    a, t = rows(student), rows(teacher)
    direction = (1 - F.cosine_similarity(a, t, dim=1, eps=1e-6)).mean()
    return DIRECTION * direction + SIZE * F.smooth_l1_loss(a, t)
