"""Feature losses by name: how a student's aligned features are compared with a teacher's.

Every built-in loss is one file of this package, which binds a `FeatureLoss` to `FEATURE_LOSS`.

A user's loss, `"package.module:thing"`, is either a function that is called as
`thing(student, teacher)` or a `FeatureLoss`. Both features have the same shape, (B, C) or
(B, C, h, w), and the result is a scalar. `onetrunk.testing.check_feature_loss` checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.registry import Registry

LossFunction = Callable[[Tensor, Tensor], Tensor]  # (student's, teacher's) to a scalar


@dataclass(frozen=True)
class FeatureLoss:
    """A function that compares features, and what it needs.

    Args:
        function: Called with the student's aligned features and the teacher's.
        min_images: The smallest batch for which the loss is defined.
        fallback: The name of the loss that replaces this one in smaller batches.
        standardize: Whether the teacher's channels are standardized first.
    """

    function: LossFunction
    min_images: int = 1
    fallback: str = "l2"
    standardize: bool = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return self.function(student, teacher)


FEATURE_LOSSES = Registry[FeatureLoss | LossFunction](__name__, "feature loss")


def load_feature_loss(name: str) -> FeatureLoss | None:
    """Return the loss of this name; None for "none"."""
    if name == "none":
        return None
    loss = FEATURE_LOSSES.load(name)
    if isinstance(loss, FeatureLoss):
        return loss
    if not callable(loss):
        raise BadInput("distill.features: expected a function", got=name)
    return FeatureLoss(loss)


def name_for_batch(name: str, batch: int) -> str:
    """Return `name`, or the name of its fallback if a batch has too few images for it."""
    loss = load_feature_loss(name)
    return name if loss is None or batch >= loss.min_images else loss.fallback


def pixel_rows(features: Tensor) -> Tensor:
    """Return (B, C) unchanged, and maps (B, C, h, w) with a row for every pixel, (B·h·w, C)."""
    if features.ndim == 2:
        return features
    return features.flatten(2).transpose(1, 2).reshape(-1, features.shape[1])


def image_rows(features: Tensor) -> Tensor:
    """Return (B, C) unchanged, and maps (B, C, h, w) averaged over pixels, (B, C)."""
    return features if features.ndim == 2 else features.flatten(2).mean(2)
