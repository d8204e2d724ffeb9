"""A 1×1 adapter in training, fused into the center of the frozen k×k kernel beside it.

f(x) + A∗x is one convolution by W′, which is W with A added to its middle tap: both are linear.
(Ding et al. 2021 merge branches like this after training.) The forward pass and the gradient of the
input then cost what the bare layer costs, and only the 1×1 A has a weight gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onetrunk.nn.adapters._branches import is_pointwise, subsample

# In half precision a small A would round away beside W.
DTYPES = (torch.float32, torch.float64)


class FusedConvolution(torch.autograd.Function):
    """W′∗x + b, with gradients for x and A alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor, kernel: Tensor, bias: Tensor | None, layer: nn.Conv2d
    ) -> Tensor:
        """Convolve once, with the stride, padding and dilation of `layer`."""
        both = kernel.clone()
        both[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += branch[:, :, 0, 0]
        ctx.save_for_backward(x, branch, both)
        ctx.geometry = layer.stride, layer.padding, layer.dilation
        return F.conv2d(x, both, bias, *ctx.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x through both kernels, and that of A as a 1×1."""
        x, branch, both = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        backward = torch.ops.aten.convolution_backward
        grad_x = grad_branch = None
        if ctx.needs_input_grad[0]:
            options = (None, stride, padding, dilation, False, (0, 0), 1)
            grad_x, _, _ = backward(gradient, x, both, *options, (True, False, False))
        if ctx.needs_input_grad[1]:
            options = (None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
            read = subsample(x, stride)
            _, grad_branch, _ = backward(gradient, read, branch, *options, (False, True, False))
        return grad_x, grad_branch, None, None, None


def can_fuse(x: Tensor, layer: nn.Module, branch: nn.Module) -> bool:
    """Return whether this branch is trained beside a frozen plain convolution."""
    if type(layer) is not nn.Conv2d or not is_pointwise(branch):
        return False
    assert isinstance(branch, nn.Conv2d)
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype in DTYPES
        and branch.weight.requires_grad
        and not any(p.requires_grad for p in layer.parameters())
        and branch.bias is None
        and branch.groups == layer.groups == 1
        and max(layer.kernel_size) > 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not any(_has_hooks(module) for module in (layer, branch))
    )


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or bool(module._backward_pre_hooks)


def fused(x: Tensor, layer: nn.Conv2d, branch: nn.Conv2d) -> Tensor:
    """Return layer(x) + branch(x), up to rounding."""
    y: Tensor = FusedConvolution.apply(x, branch.weight, layer.weight, layer.bias, layer)
    return y
