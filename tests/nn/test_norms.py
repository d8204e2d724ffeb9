"""Norms against slow reference implementations, and unsupported combinations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import evo_norm, filter_response_norm, norm_act
from timm.layers import norm as timm_norm
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.bank import Bank
from onetrunk.nn.norms import NORMS, check_norm, find_norm, is_norm
from onetrunk.nn.norms.domain import family_of
from onetrunk.nn.switch import Mixed, Switch
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import make_domain, make_images
from tests.helpers.errors import raises

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(6),
    "BatchNorm2d, cumulative": lambda: nn.BatchNorm2d(6, momentum=None),
    "BatchNorm2d, no affine": lambda: nn.BatchNorm2d(6, affine=False),
    "BatchNormAct2d": lambda: norm_act.BatchNormAct2d(6),
    "GroupNorm": lambda: nn.GroupNorm(3, 6),
    "GroupNorm1": lambda: timm_norm.GroupNorm1(6),
    "GroupNormAct": lambda: norm_act.GroupNormAct(6, 2),
    "LayerNorm2d": lambda: timm_norm.LayerNorm2d(6),
    "LayerNormAct2d": lambda: norm_act.LayerNormAct2d(6),
    "RmsNorm2d": lambda: timm_norm.RmsNorm2d(6),
    "EvoNorm2dS0": lambda: evo_norm.EvoNorm2dS0(6, groups=2),
    "FilterResponseNormAct2d": lambda: filter_response_norm.FilterResponseNormAct2d(6),
    "FrozenBatchNormAct2d": lambda: norm_act.FrozenBatchNormAct2d(6),
    "LayerNorm": lambda: nn.LayerNorm(5),
    "LayerNorm, no bias": lambda: nn.LayerNorm(5, bias=False),
    "LayerNorm, two sides": lambda: nn.LayerNorm((4, 5)),
    "LayerNorm of timm": lambda: timm_norm.LayerNorm(5),
    "LayerNormFp32": lambda: timm_norm.LayerNormFp32(5),
    "RmsNorm": lambda: timm_norm.RmsNorm(5),
    "SimpleNorm": lambda: timm_norm.SimpleNorm(5),
}
NAMES = ("items", "train", "c")  # also methods of torch's containers


def _bank(make: Callable[[], nn.Module], norm: str = "domain") -> Bank:
    torch.manual_seed(0)
    switch = Switch(NAMES)
    bank = find_norm(norm).replace(make(), "here", switch).eval()
    assert isinstance(bank, Bank)
    for name in NAMES:
        slot = bank.make_slot()
        assert slot is not None
        for key, value in slot.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + (0.5 if "var" in key else 0.0))
        bank.attach(name, slot)
    return bank


def _mixed(order: list[str]) -> Mixed:
    rows = sorted(order, key=NAMES.index)
    present = sorted(set(order), key=NAMES.index)
    index = torch.tensor([NAMES.index(name) for name in rows])
    return Mixed(index, tuple(present), tuple(rows.count(name) for name in present))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("times", [1, 3])
def test_mixed_batches_run_each_image_through_its_own_layer(layer: str, times: int) -> None:
    make = LAYERS[layer]
    assert is_norm(make())
    bank = _bank(make)
    x = torch.randn(5 * times, 6, 4, 5)
    rows = ["items", "train", "train", "c", "c"]
    index = [NAMES.index(row) for row in rows for _ in range(times)]
    expected = torch.stack(
        [bank.slots[NAMES[i]].eval()(one[None])[0] for i, one in zip(index, x, strict=True)]
    )
    choice = _mixed(rows)
    for grad in (False, True):
        with torch.set_grad_enabled(grad), bank.switch.using(choice):
            torch.testing.assert_close(bank(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", ["BatchNorm2d", "BatchNorm2d, cumulative", "BatchNormAct2d"])
def test_domain_statistics_are_updated_as_by_torch(layer: str) -> None:
    make = LAYERS[layer]
    bank = _bank(make, "domain-stats").train()
    plain = make().train()
    plain.load_state_dict({**plain.state_dict(), **bank.slots["c"].state_dict()})
    x = torch.randn(4, 6, 3, 3)
    for _ in range(3):
        with bank.switch.using("c"):
            assert torch.equal(bank(x.clone()), plain(x.clone()))
    for key, value in bank.slots["c"].state_dict().items():
        assert torch.equal(value, plain.state_dict()[key])
    assert bank.slots["items"].num_batches_tracked == 0


def test_pinned_value_of_domain() -> None:
    bank = _bank(lambda: nn.BatchNorm2d(1, eps=0.0))
    slot = bank.slots["c"]
    values = {"weight": 3.0, "bias": 1.0, "running_mean": 2.0, "running_var": 4.0}
    with torch.no_grad():
        for key, value in values.items():
            slot.state_dict()[key].fill_(value)
        with bank.switch.using("c"):
            assert bank(torch.full((1, 1, 1, 2), 6.0)).tolist() == [[[[7.0, 7.0]]]]


def test_instance_by_hand() -> None:
    norm = find_norm("instance").replace(nn.BatchNorm2d(6), "here", Switch())
    x = torch.randn(3, 6, 4, 4)
    expected = (x - x.mean((2, 3), keepdim=True)) / (
        x.var((2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    torch.testing.assert_close(norm.eval()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "instance-domain", "shared-batch"])
def test_maps_of_one_pixel_are_refused(norm: str) -> None:
    with raises(BadInput, "1×1", got="1×1", try_="domain"):
        Universal(Trunk("timm/resnet18", norm=norm), [make_domain("a", 32)])


def test_shared_batch_normalizes_each_domain_by_itself() -> None:
    switch = Switch(NAMES)
    norm = find_norm("shared-batch").replace(nn.BatchNorm2d(6), "here", switch).eval()
    x = torch.randn(6, 6, 3, 3)
    with switch.using(_mixed(["items"] * 2 + ["c"] * 4)):
        got = norm(x)
    with switch.using("c"):
        torch.testing.assert_close(got[2:], norm(x[2:]))


@pytest.mark.parametrize("norm", ["shared-batch", "domain-stats", "instance", "instance-domain"])
def test_norms_that_need_running_statistics(norm: str) -> None:
    assert NORMS.load(norm).needs_running_statistics
    with raises(
        BadInput, "running statistics", "LayerNorm", got=norm, available=["domain", "shared"]
    ):
        Trunk("timm/test_vit", norm=norm)


def test_a_trunk_without_norms() -> None:
    with raises(BadInput, "timm/test_nfnet", got="domain", try_="shared"):
        Trunk("timm/test_nfnet", norm="domain")


@pytest.mark.parametrize(
    ("norm", "facts"),
    [
        ("domian", ["domian"]),
        ("no_such_module:thing", ["no_such_module"]),
        ("math:no", ["math", "no"]),
    ],
)
def test_unknown_norms(norm: str, facts: list[str]) -> None:
    with raises(BadInput, "norm", *facts) as error:
        check_norm(norm, "resnet20", [nn.BatchNorm2d(1)])
    if ":" not in norm:
        assert error.value.available == tuple(NORMS)


def test_a_bank_shows_only_what_all_slots_have_in_common() -> None:
    bank = _bank(lambda: nn.BatchNorm2d(6))
    assert (bank.num_features, bank.eps) == (6, 1e-5)  # the same in every slot
    assert not hasattr(bank, "weight")
    assert not hasattr(bank, "running_mean")
    with pytest.raises(AttributeError, match=r"here: .*'weight'"):
        _ = bank.weight


def test_parameter_names_contain_the_domain() -> None:
    model = Universal(
        Trunk("timm/test_resnet"), [make_domain("pop", 64), make_domain("training", 64)]
    )
    keys = {key for key, _ in model.named_parameters()}
    assert "trunk.net.bn1.slots.pop.weight" in keys
    assert "trunk.net.bn1.slots.training.weight" in keys


def test_global_response_norm_stays_shared() -> None:
    net = timm.create_model("convnextv2_atto", num_classes=0)
    kinds = {type(layer).__name__ for layer in net.modules() if is_norm(layer)}
    assert kinds == {"LayerNorm2d"}


def test_known_formulas() -> None:
    assert family_of(nn.BatchNorm1d(2)) == "batch"
    assert family_of(timm_norm.LayerNorm2d(2)) == "channel"
    assert family_of(nn.LayerNorm(2)) == "trailing"
    assert family_of(evo_norm.EvoNorm2dS0(32)) is None


def test_half_precision_is_kept() -> None:
    bank = _bank(lambda: nn.BatchNorm2d(6)).to(torch.bfloat16)
    x = torch.randn(2, 6, 3, 3, dtype=torch.bfloat16)
    with torch.no_grad(), bank.switch.using(_mixed(["items", "c"])):
        assert bank(x).dtype == torch.bfloat16


def test_a_mixed_training_batch_updates_each_domains_statistics() -> None:
    torch.manual_seed(0)
    model = Universal(Trunk("resnet20"), [make_domain(n, 32) for n in ("a", "b", "c")]).train()
    twin = Universal(Trunk("resnet20"), [make_domain(n, 32) for n in ("a", "b", "c")]).train()
    twin.load_state_dict(model.state_dict())
    x = make_images(6, 32)
    model(x, ["b", "a", "b", "a", "a", "b"])
    twin(x[[1, 3, 4]], "a")
    twin(x[[0, 2, 5]], "b")
    for (key, value), other in zip(
        model.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, msg=key, rtol=1e-4, atol=1e-5)
