"""Every feature loss passes the conformance suite; broken ones are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.testing import check_feature_loss
from onetrunk.train.distill.feature_losses import (
    FEATURE_LOSSES,
    FeatureLoss,
    load_feature_loss,
    name_for_batch,
)
from tests.helpers.errors import raises


def huber(student: Tensor, teacher: Tensor) -> Tensor:
    """A user's loss."""
    return torch.nn.functional.smooth_l1_loss(student, teacher)


@pytest.mark.parametrize("name", [*FEATURE_LOSSES, f"{__name__}:huber"])
def test_feature_losses_conform(name: str) -> None:
    loss = load_feature_loss(name)
    assert loss is not None
    check_feature_loss(loss)


PICKY = FeatureLoss(huber, min_images=4, fallback="cosine")


def changes(a: Tensor, t: Tensor) -> Tensor:
    return a.add_(1e-9).sub(t).square().mean()


BROKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expected a scalar": lambda a, t: (a - t).square().mean(0),
    "its value is": lambda a, t: (a - t).square().mean().log() + a.sum() * 0,
    "no gradient reaches": lambda a, t: (a.detach() - t).square().mean(),
    "its gradient is not finite": lambda a, t: (a - t).flatten(1).square().sum(1).sqrt().mean(),
    "leaf Variable|changed the student": changes,
    "in another order": lambda a, t: (a - t).square().flatten(1).mean(1).cumsum(0).sum(),
    "equal features have": lambda a, t: (a - 2 * t).square().mean(),
    "its gradient is 0": lambda a, t: a.sum() * 0 + t.sum() * 0,
}


@pytest.mark.parametrize("match", BROKEN)
def test_broken_losses_are_refused(match: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=match):
        check_feature_loss(BROKEN[match])
    if match == "equal features have":
        check_feature_loss(BROKEN[match], least=False)


def test_losses_by_name() -> None:
    assert set(FEATURE_LOSSES) == {"l2", "cka", "cosine"}
    assert load_feature_loss("none") is None
    assert name_for_batch("none", 1) == "none"
    assert name_for_batch("cka", 8) == "cka"
    assert name_for_batch("cka", 7) == "cosine"
    assert name_for_batch("l2", 1) == "l2"
    loss = load_feature_loss("torch.nn.functional:smooth_l1_loss")
    assert loss is not None and loss.function is torch.nn.functional.smooth_l1_loss
    assert load_feature_loss(f"{__name__}:PICKY") is PICKY
    assert name_for_batch(f"{__name__}:PICKY", 3) == "cosine"
    for name, facts in {
        "nowhere.at.all:thing": ["nowhere.at.all"],
        "torch:thing": ["torch", "thing"],
        "torch:__version__": ["torch:__version__"],
    }.items():
        with raises(BadInput, *facts):
            load_feature_loss(name)
