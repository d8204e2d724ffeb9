"""The linear branches of adapters: 1×1 convolutions and low-rank pairs, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class StridedPointwise(nn.Conv2d):
    """A 1×1 convolution with a stride, which subsamples its input first.

    It computes the same as a strided convolution, for which oneDNN (as of PyTorch 2.15) writes past
    its buffer in the weight gradient for channels_last images of few channels, as in an adapter of
    a strided stem: gradients are wrong, or the process crashes
    (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve every s-th pixel."""
        return F.conv2d(subsample(x, self.stride), self.weight, self.bias, groups=self.groups)


def subsample(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Return every s-th pixel of a map, from the first on."""
    down, across = stride
    return x if down == across == 1 else x[:, :, ::down, ::across]


def pointwise(inside: int, out: int, stride: Sequence[int], groups: int = 1) -> nn.Conv2d:
    """Return a 1×1 convolution without bias."""
    kind = nn.Conv2d if tuple(stride) == (1, 1) else StridedPointwise
    return kind(inside, out, 1, (stride[0], stride[1]), groups=groups, bias=False)


def is_pointwise(module: nn.Module) -> bool:
    """Return whether this is a plain 1×1 convolution."""
    plain = type(module) in (nn.Conv2d, StridedPointwise)
    return plain and getattr(module, "kernel_size", None) == (1, 1)


def rank_for(inside: int, out: int, rank: int | None) -> int:
    """Return the rank of a low-rank pair: the default, or the given one, at most the widths."""
    return max(4, min(inside, out) // 16) if rank is None else min(rank, inside, out)


def low_rank(down: nn.Conv2d | nn.Linear, out: int) -> nn.Sequential:
    """Return a low-rank pair, without effect at first: its second layer starts at zero."""
    up: nn.Conv2d | nn.Linear
    if isinstance(down, nn.Linear):
        up = nn.Linear(down.out_features, out, bias=False)
    else:
        up = nn.Conv2d(down.out_channels, out, 1, bias=False)
    nn.init.zeros_(up.weight)
    return nn.Sequential(down, up)


def pointwise_branch(
    layer: nn.Conv2d, inside: int, stride: tuple[int, int], rank: int | None
) -> nn.Module:
    """Return the branch of a convolution: a 1×1 of the same groups, or a low-rank pair."""
    out = layer.out_channels
    if layer.groups == 1 and (max(layer.kernel_size) == 1 or rank is not None):
        return low_rank(pointwise(inside, rank_for(layer.in_channels, out, rank), stride), out)
    branch = pointwise(inside, out, stride, layer.groups)
    nn.init.zeros_(branch.weight)
    return branch


def first_layer(branch: nn.Module) -> nn.Module:
    """Return the first layer of a branch."""
    return branch[0] if isinstance(branch, nn.Sequential) else branch


def kernel_of(branch: nn.Module) -> Tensor | None:
    """Return a branch as one kernel in float64; None if it is not one linear map.

    A branch is a convolution, a linear layer, or a low-rank pair of them (k×k, then 1×1).
    """
    parts = list(branch) if isinstance(branch, nn.Sequential) else [branch]
    if not all(isinstance(p, nn.Linear | nn.Conv2d) and p.bias is None for p in parts):
        return None
    kernels = [p.get_parameter("weight").double() for p in parts]
    if len(parts) == 1:
        return kernels[0]
    dense = all(p.groups == 1 for p in parts if isinstance(p, nn.Conv2d))
    plain = all(p.stride == (1, 1) for p in parts[1:] if isinstance(p, nn.Conv2d))
    if len(parts) > 2 or not dense or not plain or kernels[1][0, 0].numel() > 1:
        return None
    down, up = kernels
    return (up.flatten(1) @ down.flatten(1)).reshape(-1, *down.shape[1:])
