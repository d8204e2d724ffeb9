"""Which adapter may go into the layer that it bends, and the layer's weights when it has.

A parallel branch that is one convolution, or a low-rank pair of them, is one kernel, added to the
layer's own: a 1×1 at the tap that reads the same pixel, a k×k of the layer's own geometry in full.
A series branch is a 1×1 behind the layer and mixes its output's channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.nn import merge_kernels as merge
from onetrunk.nn.adapters import Adapted, Parallel, Series

Weights = tuple[Tensor, Tensor | None]


def merged(adapted: Adapted, sizes: Iterable[Sequence[int]]) -> Weights | str:
    """The layer's weight and bias with the adapter in them, float64; or why it has to stay.

    `sizes` are those of the images or maps (h, w) that reach the layer.
    """
    layer, adapter = adapted.layer, adapted.adapter
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return f"bends a {type(layer).__name__}"
    if "Std" in type(layer).__name__ or hasattr(layer, "parametrizations"):
        return "bends a layer that computes its kernel (standardised weights)"
    if type(adapter) is Parallel:
        return _parallel(layer, adapter, sizes)
    if type(adapter) is Series:
        return _series(layer, adapter)
    return "an adapter of a kind of its own"


def _parallel(
    layer: nn.Linear | nn.Conv2d, adapter: Parallel, sizes: Iterable[Sequence[int]]
) -> Weights | str:
    kernel = _kernel(adapter.branch)
    if kernel is None or kernel.shape[:2] != layer.weight.shape[:2]:
        return "its branch is not one linear map"
    if isinstance(layer, nn.Linear):
        return layer.weight.double() + kernel, layer.bias
    first = _first(adapter.branch)
    if not isinstance(first, nn.Conv2d) or first.stride != layer.stride:
        return "its branch has another stride than the layer"
    if max(kernel.shape[2:]) > 1:
        if _geometry(first) != _geometry(layer):
            return "its branch has another geometry than the layer"
        return layer.weight.double() + kernel, layer.bias
    found = {
        merge.taps(layer.kernel_size, layer.stride, layer.dilation, _padding(layer), size)
        for size in sizes
    }
    if len(found) > 1:
        return "which tap reads its pixel depends on the size"
    tap = found.pop()
    if tap is None:
        return "no tap of the layer's kernel reads its pixel"
    return merge.fold_parallel(layer.weight, kernel, tap), layer.bias


def _series(layer: nn.Linear | nn.Conv2d, adapter: Series) -> Weights | str:
    if not isinstance(adapter.norm, _BatchNorm) or adapter.norm.running_mean is None:
        return f"its {type(adapter.norm).__name__} takes statistics from each image itself"
    kernel, last = _kernel(adapter.branch), _first(adapter.branch)
    groups = last.groups if isinstance(last, nn.Conv2d) else 1
    out = layer.weight.shape[0]
    if kernel is None or kernel.numel() * groups != out * out:
        return "its branch is not one 1×1"
    layers_groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    if layers_groups != 1 and layers_groups != groups:
        return "its groups are not those of the layer"
    if layers_groups == 1 and groups != 1:
        kernel, groups = _dense(kernel, groups), 1
    affine = merge.affine_of_norm(adapter.norm)
    return merge.fold_series(layer.weight, layer.bias, kernel, affine, groups)


def _kernel(branch: nn.Module) -> Tensor | None:
    """A branch as one kernel, float64: a convolution, a linear layer, or a pair k×k then 1×1."""
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


def _first(branch: nn.Module) -> nn.Module:
    return branch[0] if isinstance(branch, nn.Sequential) else branch


def _padding(conv: nn.Conv2d) -> tuple[int, ...] | str:
    if type(conv).__name__.endswith("Same"):  # timm's: torch's own padding argument is not used
        return "same"
    return conv.padding


def _geometry(conv: nn.Conv2d) -> tuple[object, ...]:
    return conv.kernel_size, conv.stride, conv.dilation, _padding(conv), conv.padding_mode


def _dense(kernel: Tensor, groups: int) -> Tensor:
    """A grouped 1×1 as a dense one: its blocks on the diagonal."""
    out, inside = kernel.shape[0], kernel.shape[1]
    dense = kernel.new_zeros(groups, out // groups, groups, inside)
    for group, block in enumerate(kernel.reshape(groups, out // groups, inside)):
        dense[group, :, group] = block
    return dense.reshape(out, groups * inside, 1, 1)
