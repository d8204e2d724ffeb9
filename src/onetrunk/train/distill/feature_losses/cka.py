"""cka: centred kernel alignment of the images of a batch (Li, Liu & Bilen 2022).

    ℓ = 1 − HSIC(X, Y)/√(HSIC(X, X)·HSIC(Y, Y)),    HSIC(X, Y) = tr(K H L H)

K and L are the kernels exp(−d²/2σ²) of the L2-normalized rows of student and teacher, H = I − 1/n,
and σ² is the median of the off-diagonal d², detached and at least 1e-6. A row is an image; maps are
averaged over pixels. The loss compares images with each other, so it needs a batch of at least 8;
`cosine` is used for smaller ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_losses import FeatureLoss, image_rows

MIN_SIGMA2 = 1e-6


def cka(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare features of the same images, of any widths; the result is between 0 and 1."""
    k_NN, l_NN = centred_kernel(image_rows(student)), centred_kernel(image_rows(teacher))
    norm = k_NN.norm() * l_NN.norm()
    alignment: Tensor = (k_NN * l_NN).sum() / norm.clamp_min(1e-12)
    return 1 - alignment


def centred_kernel(rows_NC: Tensor) -> Tensor:
    """Return H K H for the L2-normalized rows."""
    x = F.normalize(rows_NC, dim=1, eps=1e-6)
    squared = (2 - 2 * x @ x.T).clamp_min(0)
    n = len(x)
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=x.device)
    # masking by value keeps the shape fixed (selecting would make the host wait for the device);
    # the median is that of n² − n numbers
    sigma2 = (
        squared.detach()
        .masked_fill(~off_diagonal, torch.inf)
        .flatten()
        .kthvalue(max(1, (n * (n - 1) + 1) // 2))
        .values.clamp_min(MIN_SIGMA2)
    )
    k = torch.exp(-squared / (2 * sigma2))
    return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()


FEATURE_LOSS = FeatureLoss(cka, min_images=8, fallback="cosine")
