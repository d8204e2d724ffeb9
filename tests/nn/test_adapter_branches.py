"""A strided 1×1 has the outputs of a plain one, and correct gradients for images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onetrunk.nn.adapters import AdapterBank, make_adapter
from onetrunk.nn.adapters._branches import StridedPointwise, is_pointwise, pointwise
from onetrunk.nn.switch import Switch


@pytest.mark.parametrize(("stride", "groups"), [((2, 2), 1), ((2, 1), 1), ((3, 3), 4)])
def test_equal_to_a_convolution_with_a_stride(stride: tuple[int, int], groups: int) -> None:
    layer = pointwise(4, 8, stride, groups).double()
    assert type(layer) is StridedPointwise
    assert is_pointwise(layer)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64, requires_grad=True)
    got = layer(x)
    expected = F.conv2d(x, layer.weight, None, stride, groups=groups)
    torch.testing.assert_close(got, expected)
    back = torch.randn_like(got)
    for mine, other in zip(
        torch.autograd.grad(got, (x, layer.weight), back),
        torch.autograd.grad(expected, (x, layer.weight), back),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_without_a_stride() -> None:
    assert type(pointwise(4, 8, (1, 1))) is nn.Conv2d
    assert not is_pointwise(nn.Conv2d(4, 8, 3))
    assert not is_pointwise(nn.Linear(4, 8))


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_beside_a_strided_stem(rank: int | None, frozen: bool) -> None:
    stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
    stem.weight.requires_grad_(not frozen)
    adapter = make_adapter("parallel", stem, rank)
    assert adapter is not None
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    bank = AdapterBank(stem, "stem", Switch())
    last = list(adapter.parameters())[-1]
    for size in (128, 64):  # above 64 pixels a plain convolution writes past its buffer
        x = torch.randn(32, 3, size, size).to(memory_format=torch.channels_last)
        y = bank.run(x, adapter)
        back = torch.randn_like(y)
        (got,) = torch.autograd.grad(y, last, back)
        kernel = last.detach().double().requires_grad_()
        read = x.double()[:, :, ::2, ::2]
        if rank is not None:
            first = next(adapter.parameters())
            read = F.conv2d(read, first.detach().double())
        (expected,) = torch.autograd.grad(F.conv2d(read, kernel), kernel, back.double())
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-2)
