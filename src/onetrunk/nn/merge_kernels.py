"""Merging: the small linear maps around a convolution written into its kernel, in float64.

With z = W∗x + b, a norm's frozen statistics s·z + t (s = γ/√(σ²+ε), t = β − s·μ):

- norm behind it:        s·(W∗x + b) + t            =  (s·W)∗x + (s·b + t)
- parallel adapter:      W∗x + A∗x                  =  W'∗x, W' = W with A added at one tap
- series adapter:        z + A∗(s·z + t)            =  M·z + A·t, M = I + A·diag(s)
- low rank (LoRA):       W·x + α·U·(D·x)            =  (W + α·U·D)·x

Kernels are (out, in/groups, …taps); linear layers' weights have no taps. The tap under a 1×1
adapter is padding/dilation, where the kernel touches the very pixel that the adapter reads (Rebuffi
et al. 2018 for the centre of a 3×3 with padding 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Affine:
    """What a norm with frozen statistics does to channel c: scale_c·z + shift_c, in float64."""

    scale_C: Tensor
    shift_C: Tensor


def affine_of(
    mean: Tensor, var: Tensor, scale: Tensor | None, bias: Tensor | None, eps: float
) -> Affine:
    """s = γ/√(σ²+ε) and t = β − s·μ."""
    s = (var.double() + eps).rsqrt()
    if scale is not None:
        s = s * scale.double()
    t = -mean.double() * s
    return Affine(s, t if bias is None else t + bias.double())


def affine_of_norm(norm: nn.Module) -> Affine:
    """The same of a batch norm module that keeps running statistics."""
    mean, var, eps = norm.running_mean, norm.running_var, norm.eps
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor) or not isinstance(eps, float):
        raise TypeError(f"{type(norm).__name__} keeps no running statistics")
    scale, bias = norm.weight, norm.bias
    return affine_of(
        mean,
        var,
        scale if isinstance(scale, Tensor) else None,
        bias if isinstance(bias, Tensor) else None,
        eps,
    )


def _per_out(vector_O: Tensor, weight: Tensor) -> Tensor:
    return vector_O.reshape(-1, *[1] * (weight.ndim - 1))


def fold_norm(weight: Tensor, bias: Tensor | None, norm: Affine) -> tuple[Tensor, Tensor]:
    """A norm right behind a convolution or a linear layer: its new weight and bias, float64."""
    new = weight.double() * _per_out(norm.scale_C, weight)
    shift = norm.shift_C
    return new, shift.clone() if bias is None else norm.scale_C * bias.double() + shift


def fold_parallel(weight: Tensor, adapter: Tensor, tap: Sequence[int]) -> Tensor:
    """A 1×1 adapter of the same groups beside a convolution: its new kernel, float64."""
    new = weight.double().clone()
    at_tap_OI = new
    for place in reversed(tap):
        at_tap_OI = at_tap_OI.select(-1, place)  # views of `new`
    at_tap_OI += adapter.double().flatten(1).reshape(at_tap_OI.shape)
    return new


def fold_series(
    weight: Tensor, bias: Tensor | None, adapter: Tensor, norm: Affine, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """z + A∗norm(z) behind a convolution: its new kernel and bias, float64.

    `adapter` (out, out/groups, 1, 1) mixes the channels of a group of the convolution's output.
    """
    out = weight.shape[0]
    a_GPQ = adapter.double().reshape(groups, out // groups, out // groups)
    m_GPQ = torch.eye(out // groups, dtype=torch.float64, device=weight.device) + (
        a_GPQ * norm.scale_C.reshape(groups, 1, -1)
    )
    grouped = weight.double().reshape(groups, out // groups, -1)
    new = (m_GPQ @ grouped).reshape(weight.shape)
    shift = (a_GPQ @ norm.shift_C.reshape(groups, -1, 1)).reshape(out)
    if bias is not None:
        shift = shift + (m_GPQ @ bias.double().reshape(groups, -1, 1)).reshape(out)
    return new, shift


def fold_low_rank(weight: Tensor, down: Tensor, up: Tensor, scale: float = 1.0) -> Tensor:
    """x → α·up·(down·x) beside a pointwise convolution or a linear layer: its weight, float64."""
    out, rank = up.shape[0], up.shape[1]
    product = up.double().reshape(out, rank) @ down.double().reshape(rank, -1)
    return weight.double() + scale * product.reshape(weight.shape)


def taps(
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int] | str,
    size: Sequence[int] | None = None,
) -> tuple[int, ...] | None:
    """Which tap reads, for every output pixel o, the input pixel stride·o: where a 1×1 stands.

    `padding` is what lies before the first pixel of each side, or "same" as torch or timm pad, the
    latter depending on the input's `size` at strides above 1. None: no tap reads it.
    """
    found = []
    for side, (k, d) in enumerate(zip(kernel, dilation, strict=True)):
        if not isinstance(padding, str):
            before = padding[side]
        elif padding == "valid":
            before = 0
        elif stride[side] == 1:
            before = d * (k - 1) // 2
        elif size is None:
            return None
        else:
            before = same_padding(size[side], k, stride[side], d)[0]
        if before % d or before // d >= k:
            return None
        found.append(before // d)
    return tuple(found)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one side, before and after: output ⌈size/stride⌉."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
