"""Feature losses by name: what aligned features and a teacher's are compared by.

One of your own, "package.module:thing", is called as `thing(student, teacher)` with features
(B, C), or maps (B, C, h, w), of one shape, and returns a scalar; `onetrunk.testing` has its
conformance.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.train.distill.cka import FEWEST, cka
from onetrunk.train.distill.cosine import cosine
from onetrunk.train.distill.l2 import l2

FeatureLoss = Callable[[Tensor, Tensor], Tensor]  # (aligned student's, teacher's) to a scalar
LOSSES: Mapping[str, FeatureLoss] = MappingProxyType({"l2": l2, "cka": cka, "cosine": cosine})


def feature_loss(name: str, batch: int) -> FeatureLoss | None:
    """The loss of this name for batches of so many images; None where features are not taught."""
    if name == "none":
        return None
    if stands_in(name, batch):
        return cosine
    return LOSSES[name] if name in LOSSES else _own(name)


def stands_in(name: str, batch: int) -> bool:
    """Whether `cosine` stands in for `cka`, which compares images: too few have no geometry."""
    return name == "cka" and batch < FEWEST


def _own(name: str) -> FeatureLoss:
    module, _, thing = name.partition(":")
    try:
        found: FeatureLoss = getattr(importlib.import_module(module), thing)
    except ImportError as error:
        raise BadInput(
            f"distill.features: cannot import {module}", got=str(error), available=LOSSES
        ) from None
    except (AttributeError, ValueError):
        raise BadInput(
            f"distill.features: {module} has no such thing", got=thing, available=LOSSES
        ) from None
    if not callable(found):
        raise BadInput("distill.features: expected a function", got=name)
    return found
