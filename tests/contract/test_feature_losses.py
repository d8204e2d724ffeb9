"""Every feature loss passes the conformance suite; broken ones are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.testing import check_feature_loss
from onetrunk.testing.feature_losses import check_inputs_unchanged
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


# by the condition that fails
BROKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "value.shape": lambda a, t: (a - t).square().mean(0),
    "isfinite(value)": lambda a, t: (a - t).square().mean().log() + a.sum() * 0,
    "value.requires_grad": lambda a, t: (a.detach() - t).square().mean(),
    "isfinite(grad)": lambda a, t: (a - t).flatten(1).square().sum(1).sqrt().mean(),
    "one - other": lambda a, t: (a - t).square().flatten(1).mean(1).cumsum(0).sum(),
    "same <= other": lambda a, t: (a - 2 * t).square().mean(),
    "grad.any()": lambda a, t: a.sum() * 0 + t.sum() * 0,
}


@pytest.mark.parametrize("condition", BROKEN)
def test_broken_losses_are_refused(condition: str) -> None:
    with pytest.raises(AssertionError) as error:
        check_feature_loss(BROKEN[condition])
    assert condition in str(error.traceback[-1].statement)
    if condition == "same <= other":
        check_feature_loss(BROKEN[condition], least=False)


def test_losses_that_change_their_inputs_are_refused() -> None:
    def change_student(a: Tensor, t: Tensor) -> Tensor:
        return a.add_(1e-9).sub(t).square().mean()

    def change_teacher(a: Tensor, t: Tensor) -> Tensor:
        return t.add_(1e-9).sub(a).square().mean()

    for loss, name in ((change_student, "a.equal"), (change_teacher, "t.equal")):
        with pytest.raises(AssertionError) as error:
            check_inputs_unchanged(loss, (4, 3))
        assert name in str(error.traceback[-1].statement)
    with pytest.raises(RuntimeError, match="leaf Variable"):  # from torch
        check_feature_loss(change_student)
    with pytest.raises(AssertionError):
        check_feature_loss(change_teacher)


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
