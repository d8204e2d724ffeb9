"""Every feature loss through the one conformance suite, and losses that it has to refuse."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.testing import conform_feature_loss
from onetrunk.train.distill.feature_losses import LOSSES, feature_loss, stands_in


def huber(student: Tensor, teacher: Tensor) -> Tensor:
    """A third party's."""
    return torch.nn.functional.smooth_l1_loss(student, teacher)


@pytest.mark.parametrize("name", [*LOSSES, "huber"])
def test_ours_and_a_third_partys(name: str) -> None:
    conform_feature_loss(LOSSES.get(name, huber))


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
def test_what_is_broken_is_named(match: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=match):
        conform_feature_loss(BROKEN[match])
    if match == "equal features have":
        conform_feature_loss(BROKEN[match], least=False)


def test_losses_by_name() -> None:
    assert feature_loss("none", 8) is None
    assert feature_loss("cka", 8) is LOSSES["cka"] and not stands_in("cka", 8)
    assert feature_loss("cka", 7) is LOSSES["cosine"] and stands_in("cka", 7)
    assert feature_loss("l2", 1) is LOSSES["l2"] and not stands_in("l2", 1)
    assert (
        feature_loss("torch.nn.functional:smooth_l1_loss", 4) is torch.nn.functional.smooth_l1_loss
    )
    for name, match in {
        "nowhere.at.all:thing": "cannot import nowhere.at.all",
        "torch:thing": "torch has no such thing; got: 'thing'",
        "torch:__version__": "expected a function",
    }.items():
        with pytest.raises(BadInput, match=match):
            feature_loss(name, 8)
