"""Merged kernels have the outputs of the separate layers, in float64."""

from typing import Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from onetrunk.nn import merge_kernels as merge

D = torch.float64


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).double().eval()
    for name in ("weight", "bias", "running_mean"):
        nn.init.normal_(getattr(norm, name))
    nn.init.uniform_(norm.get_buffer("running_var"), 0.1, 3)
    return norm


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_pinned_values() -> None:
    # γ = 2, β = 1, μ = 3, σ² = 4 − ε: s = 1, t = 1 − 3 = −2
    affine = merge.affine_of(
        torch.tensor([3.0]), torch.tensor([3.5]), torch.tensor([2.0]), torch.tensor([1.0]), 0.5
    )
    assert affine.scale_C.tolist() == [1.0]
    assert affine.shift_C.tolist() == [-2.0]
    weight, bias = merge.fold_norm(torch.tensor([[5.0]]), torch.tensor([7.0]), affine)
    assert (weight.tolist(), bias.tolist()) == ([[5.0]], [5.0])
    kernel = merge.fold_parallel(torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 1, 1), (1, 2))
    assert kernel[0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_norm_behind_a_convolution(bias: bool, groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, 2, 1, bias=bias, groups=groups).double()
    norm = norm_of(6)
    x = torch.randn(2, 4, 9, 8, dtype=D)
    weight, shift = merge.fold_norm(conv.weight, conv.bias, merge.affine_of_norm(norm))
    close(F.conv2d(x, weight, shift, 2, 1, groups=groups), norm(conv(x)))


def test_norm_without_scale_or_statistics() -> None:
    norm = nn.BatchNorm2d(3, affine=False)
    affine = merge.affine_of_norm(norm)
    close(affine.scale_C, torch.full((3,), (1 + norm.eps) ** -0.5, dtype=D))
    with pytest.raises(TypeError, match="no running statistics"):
        merge.affine_of_norm(nn.BatchNorm2d(3, track_running_stats=False))


@settings(deadline=None, max_examples=60)
@given(
    k=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5, 7])),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    groups=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(13, 18), st.integers(13, 18)),
)
def test_parallel_adapter_sits_at_padding_over_dilation(
    k: tuple[int, int],
    stride: int,
    dilation: int,
    padding: tuple[int, int],
    groups: int,
    size: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    tap = merge.taps(k, (stride, stride), (dilation, dilation), padding)
    if tap is None:
        assert any(p % dilation or p // dilation >= n for p, n in zip(padding, k, strict=True))
        return
    weight = torch.randn(4, 2 // groups, *k, dtype=D)
    adapter = torch.randn(4, 2 // groups, 1, 1, dtype=D)
    x = torch.randn(2, 2, *size, dtype=D)
    plain = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    beside = F.conv2d(x, adapter, None, stride, groups=groups)
    # with more padding, the layer has outputs at which the adapter has none
    h, w = min(plain.shape[2], beside.shape[2]), min(plain.shape[3], beside.shape[3])
    folded = F.conv2d(
        x, merge.fold_parallel(weight, adapter, tap), None, stride, padding, dilation, groups
    )
    close(folded[:, :, :h, :w], plain[:, :, :h, :w] + beside[:, :, :h, :w])


Padding = Literal["reflect", "replicate", "circular"]


@pytest.mark.parametrize("mode", get_args(Padding))
def test_parallel_adapter_under_other_paddings(mode: Padding) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, 2, 1, padding_mode=mode).double()
    adapter = nn.Conv2d(3, 4, 1, 2, bias=False).double()
    x = torch.randn(2, 3, 9, 11, dtype=D)
    want = conv(x) + adapter(x)
    conv.weight = nn.Parameter(merge.fold_parallel(conv.weight, adapter.weight, (1, 1)))
    close(conv(x), want)


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (9, 9)])
@pytest.mark.parametrize("k", [3, 5])
def test_same_padding_needs_the_size(k: int, size: tuple[int, int]) -> None:
    from timm.layers.conv2d_same import Conv2dSame

    torch.manual_seed(0)
    conv = Conv2dSame(3, 4, k, 2, bias=False).double()
    adapter = nn.Conv2d(3, 4, 1, 2, bias=False).double()
    x = torch.randn(2, 3, *size, dtype=D)
    want = conv(x) + adapter(x)
    assert merge.taps((k, k), (2, 2), (1, 1), "same") is None
    tap = merge.taps((k, k), (2, 2), (1, 1), "same", size)
    assert tap is not None
    conv.weight = nn.Parameter(merge.fold_parallel(conv.weight, adapter.weight, tap))
    close(conv(x), want)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_series_adapter(bias: bool, groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=groups, bias=bias).double()
    adapter = nn.Conv2d(6, 6, 1, groups=groups, bias=False).double()
    norm1, norm2 = norm_of(6), norm_of(6)
    x = torch.randn(2, 6, 5, 5, dtype=D)
    z = conv(x)
    weight, shift = merge.fold_series(
        conv.weight, conv.bias, adapter.weight, merge.affine_of_norm(norm1), groups
    )
    close(F.conv2d(x, weight, shift, padding=1, groups=groups), z + adapter(norm1(z)))
    weight, shift = merge.fold_norm(weight, shift, merge.affine_of_norm(norm2))
    close(F.conv2d(x, weight, shift, padding=1, groups=groups), norm2(z + adapter(norm1(z))))


def test_an_adapter_at_zero_and_an_identity_norm_change_nothing() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, dtype=D)
    assert torch.equal(merge.fold_parallel(weight, torch.zeros(4, 3, 1, 1), (1, 1)), weight)
    one = merge.Affine(torch.ones(4, dtype=D), torch.zeros(4, dtype=D))
    new, shift = merge.fold_series(weight, None, torch.zeros(4, 4, 1, 1), one)
    assert torch.equal(new, weight)
    assert torch.equal(shift, torch.zeros(4, dtype=D))
