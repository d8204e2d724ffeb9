"""While it learns, a 1×1 adapter beside a frozen k×k convolution rides in the kernel's centre.

f(x) + A∗x is one convolution by W′, which is W with A added to its middle tap: both are linear.
(Ding et al. 2021 merge branches so after training.) Forward and input gradient then cost what the
bare layer costs, and of the weight gradient only that of A, a 1×1's, is computed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onetrunk.nn.strided_conv import is_pointwise, thin

WHOLE = (torch.float32, torch.float64)  # in half precision a small A would round away beside W


class Centred(torch.autograd.Function):
    """W′∗x + b, with gradients for x and A alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor, kernel: Tensor, bias: Tensor | None, layer: nn.Conv2d
    ) -> Tensor:
        """One convolution; `layer` says how it strides."""
        both = kernel.clone()
        both[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] += branch[:, :, 0, 0]
        ctx.save_for_backward(x, branch, both)
        ctx.how = layer.stride, layer.padding, layer.dilation
        return F.conv2d(x, both, bias, *ctx.how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of x through both together, of A as of a 1×1."""
        x, branch, both = ctx.saved_tensors
        stride, padding, dilation = ctx.how
        back = torch.ops.aten.convolution_backward
        of_x = of_branch = None
        if ctx.needs_input_grad[0]:
            how = (None, stride, padding, dilation, False, (0, 0), 1)
            of_x, _, _ = back(gradient, x, both, *how, (True, False, False))
        if ctx.needs_input_grad[1]:
            how = (None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
            read = thin(x, stride)
            _, of_branch, _ = back(gradient, read, branch, *how, (False, True, False))
        return of_x, of_branch, None, None, None


def rides(x: Tensor, layer: nn.Module, branch: nn.Module) -> bool:
    """Whether this branch learns beside this layer, frozen, and both are as plain as can be."""
    if type(layer) is not nn.Conv2d or not is_pointwise(branch):
        return False
    assert isinstance(branch, nn.Conv2d)
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype in WHOLE
        and branch.weight.requires_grad
        and not any(p.requires_grad for p in layer.parameters())
        and branch.bias is None
        and branch.groups == layer.groups == 1
        and max(layer.kernel_size) > 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not any(_watched(module) for module in (layer, branch))
    )


def _watched(module: nn.Module) -> bool:
    """Whether somebody wants to be told when it runs."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or bool(module._backward_pre_hooks)


def ride(x: Tensor, layer: nn.Conv2d, branch: nn.Conv2d) -> Tensor:
    """layer(x) + branch(x), to rounding."""
    made: Tensor = Centred.apply(x, branch.weight, layer.weight, layer.bias, layer)
    return made
