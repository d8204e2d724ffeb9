"""Class means: a nearest-mean classifier for a few images, as a linear head.

With the mean feature m and z = (f − m)/‖f − m‖, the mean direction of a class is u_c = Σz/‖Σz‖ over
its images, and an image belongs to the class with the nearest direction by cosine (Snell et al.
2017; centred and of unit length: Wang et al. 2019). ‖f − m‖ is the same for all classes, so the
linear logits s·u_c·(f − m) give the same predictions. The scale s makes them ten times the cosine
for an image of average length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 10.0  # logits divided by cosine, on average
NEVER = -1e4  # the bias of a class without images


def class_means(features_nC: Tensor, labels_n: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weight (classes, C) and bias (classes,) in float64.

    Classes without images are never predicted.
    """
    x = features_nC.double()
    mean = x.mean(0)
    centred = x - mean
    z = F.normalize(centred, dim=1)
    total = torch.zeros(classes, x.shape[1], dtype=torch.float64).index_add_(0, labels_n, z)
    scale = SCALE / float(centred.norm(dim=1).mean().clamp_min(1e-12))
    weight = scale * F.normalize(total, dim=1)
    bias = -weight @ mean
    bias[torch.bincount(labels_n, minlength=classes) == 0] = NEVER
    return weight, bias


def class_means_error(
    fitted: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int
) -> float:
    """Return the error in percent on held-out (features, labels), with class means of `fitted`."""
    weight, bias = class_means(*fitted, classes)
    features, labels = held_out
    predicted = (features.double() @ weight.T + bias).argmax(1)
    return float(100 * (predicted != labels).double().mean())
