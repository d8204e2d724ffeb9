"""`series`: z = f(x), y = z + A∗BN(z) (Rebuffi et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.nn import merge_kernels as merge
from onetrunk.nn.adapters._base import Adapter, AdapterMethod, Weights
from onetrunk.nn.adapters._branches import (
    first_layer,
    kernel_of,
    low_rank,
    pointwise_branch,
    rank_for,
)


class Series(Adapter):
    """z = f(x), y = z + branch(norm(z))."""

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y + branch(norm(y))."""
        return y + self.branch(self.norm(y))  # type: ignore[no-any-return]

    def merged(self, layer: nn.Linear | nn.Conv2d, sizes: Iterable[Sequence[int]]) -> Weights | str:
        """Mix the output channels of the layer by the branch's 1×1."""
        if not isinstance(self.norm, _BatchNorm) or self.norm.running_mean is None:
            return f"its {type(self.norm).__name__} takes statistics from each image itself"
        kernel, first = kernel_of(self.branch), first_layer(self.branch)
        groups = first.groups if isinstance(first, nn.Conv2d) else 1
        out = layer.weight.shape[0]
        if kernel is None or kernel.numel() * groups != out * out:
            return "its branch is not one 1×1"
        layer_groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        if layer_groups not in (1, groups):
            return "its groups are not those of the layer"
        if layer_groups == 1 and groups != 1:
            kernel, groups = _dense(kernel, groups), 1
        affine = merge.affine_of_norm(self.norm)
        return merge.fold_series(layer.weight, layer.bias, kernel, affine, groups)


def _dense(kernel: Tensor, groups: int) -> Tensor:
    """Return a grouped 1×1 as a dense one: its blocks on the diagonal."""
    out, inside = kernel.shape[0], kernel.shape[1]
    dense = kernel.new_zeros(groups, out // groups, groups, inside)
    for group, block in enumerate(kernel.reshape(groups, out // groups, inside)):
        dense[group, :, group] = block
    return dense.reshape(out, groups * inside, 1, 1)


class SeriesAdapters(AdapterMethod):
    """A norm and a branch after the layer."""

    def make(self, layer: nn.Conv2d | nn.Linear, rank: int | None) -> Series:
        """Return a batch norm and a 1×1 or a low-rank pair; a layer norm after linear layers."""
        if isinstance(layer, nn.Conv2d):
            out = layer.out_channels
            branch = pointwise_branch(layer, out, (1, 1), rank)
            return Series(nn.BatchNorm2d(out), branch)
        out = layer.out_features
        down = nn.Linear(out, rank_for(layer.in_features, out, rank), bias=False)
        pair = low_rank(down, out)
        return Series(nn.LayerNorm(out), pair)


ADAPTER = SeriesAdapters
