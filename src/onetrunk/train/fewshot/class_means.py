"""Class means: the head that a handful of images can pay for, as a linear one.

With m the mean feature and z = (f − m)/‖f − m‖, a class's mean direction is u_c = Σz/‖Σz‖ over its
images, and an image is of the class nearest by cosine (Snell et al. 2017; centred and of length
one: Wang et al. 2019). ‖f − m‖ is the same for all classes, so the linear logits s·u_c·(f − m)
say the same; s makes them ten times the cosine for an image of average length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARP = 10.0  # logits are about so many cosines


def class_means(features_nC: Tensor, labels_n: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight (classes, C) and bias (classes,), float64; a class without an image is never said."""
    x = features_nC.double()
    mean = x.mean(0)
    centred = x - mean
    z = F.normalize(centred, dim=1)
    total = torch.zeros(classes, x.shape[1], dtype=torch.float64).index_add_(0, labels_n, z)
    scale = SHARP / float(centred.norm(dim=1).mean().clamp_min(1e-12))
    weight = scale * F.normalize(total, dim=1)
    bias = -weight @ mean
    bias[torch.bincount(labels_n, minlength=classes) == 0] = -1e4
    return weight, bias


def means_error(known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], classes: int) -> float:
    """Error in percent on `asked` (features, labels) of the means of `known`."""
    weight, bias = class_means(*known, classes)
    features, labels = asked
    said = (features.double() @ weight.T + bias).argmax(1)
    return float(100 * (said != labels).double().mean())
