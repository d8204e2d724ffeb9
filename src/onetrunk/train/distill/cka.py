"""cka: the images of a batch lie to each other as they do for the teacher (Li, Liu & Bilen 2022).

    ℓ = 1 − HSIC(X, Y)/√(HSIC(X, X)·HSIC(Y, Y)), HSIC(X, Y) = tr(K H L H),

K and L the kernels exp(−d²/2σ²) of the L2-normalised rows of student and teacher, H = I − 1/n, and
σ² the median of the off-diagonal d², without gradient and at least 1e-6. A row is an image (of maps
the mean over pixels). It needs a batch: with fewer than `FEWEST` rows `cosine` stands in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.train.distill.feature_rows import means

FEWEST = 8  # rows
LEAST = 1e-6  # of σ²


def cka(student: Tensor, teacher: Tensor) -> Tensor:
    """Features of the same images, of any widths, to a scalar, 0 to 1."""
    k_NN, l_NN = kernel(means(student)), kernel(means(teacher))
    norm = k_NN.norm() * l_NN.norm()
    same: Tensor = (k_NN * l_NN).sum() / norm.clamp_min(1e-12)
    return 1 - same


def kernel(rows_NC: Tensor) -> Tensor:
    """H K H: the centred kernel of normalised rows."""
    x = F.normalize(rows_NC, dim=1, eps=1e-6)
    squared = (2 - 2 * x @ x.T).clamp_min(0)
    n = len(x)
    apart = ~torch.eye(n, dtype=torch.bool, device=x.device)
    # (n² − n numbers: their mask has a fixed count, so nothing waits for the device)
    sigma2 = (
        squared.detach()
        .masked_fill(~apart, torch.inf)
        .flatten()
        .kthvalue(max(1, (n * (n - 1) + 1) // 2))
        .values.clamp_min(LEAST)
    )
    k = torch.exp(-squared / (2 * sigma2))
    return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()
