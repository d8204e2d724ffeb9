"""A 1×1 fused into a frozen kernel has the values and gradients of separate layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import onetrunk as ot
from onetrunk.nn.adapters import _fused, make_adapter
from onetrunk.nn.adapters._fused import can_fuse, fused
from onetrunk.nn.adapters.parallel import Parallel

LAYERS: dict[str, Callable[[], nn.Conv2d]] = {
    "3×3": lambda: nn.Conv2d(5, 7, 3, padding=1, bias=False),
    "with a bias": lambda: nn.Conv2d(5, 7, 3, padding=1),
    "stride 2": lambda: nn.Conv2d(5, 7, 3, 2, 1, bias=False),
    "stride 3, 5×5": lambda: nn.Conv2d(5, 7, 5, 3, 2, bias=False),
    "dilated": lambda: nn.Conv2d(5, 7, 3, 2, 2, dilation=2),
    "1×3": lambda: nn.Conv2d(5, 7, (1, 3), padding=(0, 1), bias=False),
}


def pair(layer: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return the layer, frozen, and its parallel branch with random weights, in float64."""
    layer = layer.double().requires_grad_(False)
    adapter = make_adapter("parallel", layer)
    assert isinstance(adapter, Parallel)
    branch = adapter.branch
    assert isinstance(branch, nn.Conv2d)
    nn.init.normal_(branch.weight)
    return layer, branch


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_values_and_gradients(make: Callable[[], nn.Conv2d], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, branch = pair(make())
    x = torch.randn(3, 5, *size, dtype=torch.float64, requires_grad=True)
    assert can_fuse(x, layer, branch)
    expected, got = layer(x) + branch(x), fused(x, layer, branch)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    back = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, (x, branch.weight), back)
    gradients = torch.autograd.grad(got, (x, branch.weight), back)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-12, atol=1e-12)


CHANGES: dict[str, Callable[[nn.Conv2d, nn.Conv2d], object]] = {
    "the layer is trained": lambda layer, _: layer.requires_grad_(True),
    "the layer has a hook": lambda layer, _: layer.register_forward_hook(lambda *_: None),
    "the branch is not trained": lambda _, branch: branch.requires_grad_(False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_not_fused_if_more_than_the_branch_is_trained(
    change: Callable[[nn.Conv2d, nn.Conv2d], object],
) -> None:
    layer, branch = pair(LAYERS["3×3"]())
    x = torch.randn(1, 5, 8, 8, dtype=torch.float64)
    change(layer, branch)
    assert not can_fuse(x, layer, branch)


def test_not_fused_without_gradients_or_in_half_precision() -> None:
    layer, branch = pair(LAYERS["3×3"]())
    x = torch.randn(1, 5, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert not can_fuse(x, layer, branch)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_fuse(x, layer, branch)
    assert not can_fuse(x.bfloat16(), layer, branch)
    assert can_fuse(x, layer, branch)
    grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2).double().requires_grad_(False)
    beside = nn.Conv2d(4, 4, 1, groups=2, bias=False).double()
    assert not can_fuse(x, grouped, beside)
    assert not can_fuse(x, layer, nn.Sequential(branch))


def test_training_is_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def record(x: Tensor, layer: nn.Module, branch: nn.Module) -> bool:
        calls.append(can_fuse(x, layer, branch))
        return calls[-1]

    def gradients(decide: Callable[[Tensor, nn.Module, nn.Module], bool]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        task = ot.Task("classify", "classify", ("stop", "go"))
        domain = ot.Domain("signs", None, [task], size=32)
        model = ot.Universal(ot.Trunk("resnet20", adapters="parallel"), [domain]).double()
        for parameter in model.parameters_of("signs").values():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.learn_only("signs")
        model.train()
        monkeypatch.setattr(_fused, "can_fuse", decide)
        x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        torch.autograd.backward(model(x, "signs")["classify"].square().sum())
        grads = {k: p.grad for k, p in model.parameters_of("signs").items()}
        return {k: grad for k, grad in grads.items() if grad is not None}

    together, apart = gradients(record), gradients(lambda *_: False)
    assert sum(calls) == 19  # every convolution of a resnet20
    assert together.keys() == apart.keys()
    for key, grad in apart.items():
        torch.testing.assert_close(together[key], grad, rtol=1e-7, atol=1e-9)
