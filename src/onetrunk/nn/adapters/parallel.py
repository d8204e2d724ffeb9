"""`parallel`: y = f(x) + A∗x (Rebuffi et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from onetrunk.nn import merge_kernels as merge
from onetrunk.nn.adapters import _fused
from onetrunk.nn.adapters._base import Adapter, AdapterMethod, Weights
from onetrunk.nn.adapters._branches import (
    first_layer,
    is_pointwise,
    kernel_of,
    low_rank,
    pointwise_branch,
    rank_for,
)

# Up to this many channels one batched product is faster than one product per segment: it copies
# C² numbers for every image.
MAX_BATCHED = 128


class Parallel(Adapter):
    """y = f(x) + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y + branch(x)."""
        return y + self.branch(x)  # type: ignore[no-any-return]

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Run the layer and the branch, as one convolution if possible."""
        if _fused.can_fuse(x, layer, self.branch):
            return _fused.fused(x, layer, self.branch)  # type: ignore[arg-type]
        return super().run(layer, x)

    @classmethod
    def can_batch(cls, slots: Sequence[nn.Module]) -> bool:
        """Return whether all branches are matrices, or pairs of them, of one shape and stride."""
        kinds = set()
        for slot in slots:
            if type(slot) is not Parallel:
                return False
            parts = slot._parts()
            for part in parts:
                dense = is_pointwise(part) and part.groups == 1
                if not dense and type(part) is not nn.Linear:
                    return False
            shapes = tuple(part.get_parameter("weight").shape for part in parts)
            kinds.add((shapes, slot._stride()))
        return len(kinds) == 1

    def batched(self, x: Tensor, y: Tensor, tensors: list[Tensor]) -> Tensor:
        """Return y + A∗x with a matrix A, or a pair of them, for each image."""
        first, *rest = [weight.flatten(2) if weight.ndim > 3 else weight for weight in tensors]
        stride = self._stride()
        if stride == 0:  # linear: (B, …, C)
            x_BPC = x.reshape(x.shape[0], -1, x.shape[-1])
            y_BPC = y.reshape(y.shape[0], -1, y.shape[-1])
            return _product(x_BPC, y_BPC, first, rest).view(y.shape)
        if stride > 1:
            x = x[:, :, ::stride, ::stride]
        B, _, H, W = x.shape
        if y.is_contiguous() and not rest:
            return torch.baddbmm(y.flatten(2), first, x.flatten(2)).view(B, -1, H, W)
        x_BPC, y_BPC = x.permute(0, 2, 3, 1).flatten(1, 2), y.permute(0, 2, 3, 1).flatten(1, 2)
        return _product(x_BPC, y_BPC, first, rest).view(B, H, W, -1).permute(0, 3, 1, 2)

    def faster_by_segment(self, layer: nn.Module) -> bool:
        """Return whether the branch is a pair, or the layer wider than `MAX_BATCHED`."""
        weight = layer.get_parameter("weight")
        wide = weight.shape[0] > MAX_BATCHED or weight.shape[1] > MAX_BATCHED
        return wide or isinstance(self.branch, nn.Sequential)

    def merged(self, layer: nn.Linear | nn.Conv2d, sizes: Iterable[Sequence[int]]) -> Weights | str:
        """Add the branch's kernel to the layer's.

        A 1×1 is added at the tap that reads the same pixel, a k×k at all taps.
        """
        kernel, first = kernel_of(self.branch), first_layer(self.branch)
        if kernel is None or kernel.shape[:2] != layer.weight.shape[:2]:
            return "its branch is not one linear map"
        if isinstance(layer, nn.Linear):
            return layer.weight.double() + kernel, layer.bias
        if not isinstance(first, nn.Conv2d) or first.stride != layer.stride:
            return "its branch has another stride than the layer"
        if max(kernel.shape[2:]) > 1:
            if _geometry(first) != _geometry(layer):
                return "its branch has another geometry than the layer"
            return layer.weight.double() + kernel, layer.bias
        taps = {
            merge.taps(layer.kernel_size, layer.stride, layer.dilation, _padding(layer), size)
            for size in sizes
        }
        if len(taps) > 1:
            return "which tap reads its pixel depends on the size"
        tap = taps.pop()
        if tap is None:
            return "no tap of the layer's kernel reads its pixel"
        return merge.fold_parallel(layer.weight, kernel, tap), layer.bias

    def _parts(self) -> list[nn.Module]:
        return list(self.branch) if type(self.branch) is nn.Sequential else [self.branch]

    def _stride(self) -> int:
        """Return the stride of the branch; 0 if it is linear."""
        first = self._parts()[0]
        return int(first.stride[0]) if isinstance(first, nn.Conv2d) else 0


def _product(x_BPC: Tensor, y_BPC: Tensor, first: Tensor, rest: list[Tensor]) -> Tensor:
    last = first
    if rest:
        x_BPC, last = torch.bmm(x_BPC, first.transpose(1, 2)), rest[0]
    return torch.baddbmm(y_BPC, x_BPC, last.transpose(1, 2))


def _padding(conv: nn.Conv2d) -> tuple[int, ...] | str:
    if type(conv).__name__.endswith("Same"):  # timm's, without torch's padding argument
        return "same"
    return conv.padding


def _geometry(conv: nn.Conv2d) -> tuple[object, ...]:
    return conv.kernel_size, conv.stride, conv.dilation, _padding(conv), conv.padding_mode


class ParallelAdapters(AdapterMethod):
    """A branch beside the layer."""

    def make(self, layer: nn.Conv2d | nn.Linear, rank: int | None) -> Parallel | None:
        """Return a 1×1 of the layer's stride and groups, or a low-rank pair."""
        if isinstance(layer, nn.Conv2d):
            stride = (layer.stride[0], layer.stride[1])
            return Parallel(pointwise_branch(layer, layer.in_channels, stride, rank))
        inside, out = layer.in_features, layer.out_features
        return Parallel(low_rank(nn.Linear(inside, rank_for(inside, out, rank), bias=False), out))


ADAPTER = ParallelAdapters
