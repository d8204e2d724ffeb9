"""Merge the small linear maps around a convolution into its kernel, in float64.

With z = W∗x + b, a norm's frozen statistics s·z + t (s = γ/√(σ²+ε), t = β − s·μ):

- norm after it:         s·(W∗x + b) + t            =  (s·W)∗x + (s·b + t)
- parallel adapter:      W∗x + A∗x                  =  W'∗x, W' = W with A added at one tap
- series adapter:        z + A∗(s·z + t)            =  M·z + A·t, M = I + A·diag(s)

Kernels are (out, in/groups, …taps); the weights of linear layers have no taps. A 1×1 adapter is
added at the tap padding/dilation, which reads the same pixel (Rebuffi et al. 2018 for the center of
a 3×3 with padding 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Affine:
    """A norm with frozen statistics as an affine map of channel c: scale_c·z + shift_c, float64."""

    scale_C: Tensor
    shift_C: Tensor


def affine_of(
    mean: Tensor, var: Tensor, scale: Tensor | None, bias: Tensor | None, eps: float
) -> Affine:
    """Return s = γ/√(σ²+ε) and t = β − s·μ."""
    s = (var.double() + eps).rsqrt()
    if scale is not None:
        s = s * scale.double()
    t = -mean.double() * s
    return Affine(s, t if bias is None else t + bias.double())


def affine_of_norm(norm: nn.Module) -> Affine:
    """Return the affine map of a batch norm that keeps running statistics."""
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
    """Return weight and bias of a layer with the norm after it merged, in float64."""
    new = weight.double() * _per_out(norm.scale_C, weight)
    shift = norm.shift_C
    return new, shift.clone() if bias is None else norm.scale_C * bias.double() + shift


def fold_parallel(weight: Tensor, adapter: Tensor, tap: Sequence[int]) -> Tensor:
    """Return the kernel of a convolution plus a parallel 1×1 of the same groups, in float64."""
    new = weight.double().clone()
    at_tap_OI = new
    for place in reversed(tap):
        at_tap_OI = at_tap_OI.select(-1, place)  # views of `new`
    at_tap_OI += adapter.double().flatten(1).reshape(at_tap_OI.shape)
    return new


def fold_series(
    weight: Tensor, bias: Tensor | None, adapter: Tensor, norm: Affine, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the kernel and bias of a convolution followed by z + A∗norm(z), in float64.

    `adapter` (out, out/groups, 1, 1) mixes the output channels within each group.
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


def taps(
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int] | str,
    size: Sequence[int] | None = None,
) -> tuple[int, ...] | None:
    """Return the tap that reads, for every output pixel o, the input pixel stride·o.

    A parallel 1×1 is added at this tap. Returns None if no tap reads this pixel.

    Args:
        padding: Pixels before the first pixel of each side, or "same" as torch or timm pad.
        size: The size of the input, on which timm's "same" depends at strides above 1.
    """
    places = []
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
        places.append(before // d)
    return tuple(places)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one side, before and after: output ⌈size/stride⌉."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
