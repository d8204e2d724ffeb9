"""Batch norm of a sorted mixed batch in training, all its domains at once.

Each domain's images are normalised by that domain's own moments, as if they came alone. One domain
after another costs a kernel for each; here the moments of every image are added up by domain, which
costs the same for two domains and for a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FEWEST = 4  # domains; fewer are as fast one after the other


class SegmentNorm(torch.autograd.Function):
    """y = s·x̂ + b with x̂ = (x − μ)/√(σ² + ε), μ and σ² of each domain's own images.

    With n numbers a channel in a domain, G = Σ g and X = Σ g·x̂ over them, the gradients are
    ∂b = G, ∂s = X, ∂x = s/√(σ² + ε) · (g − G/n − x̂·X/n), as of any batch norm.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sizes: Tensor, eps: float, *affine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`affine`: all scales, then all biases; also returns μ and σ² (domains, C)."""
        spread = list(range(2, x.ndim))
        segment = torch.repeat_interleave(sizes)
        images = sizes.to(x.dtype)[:, None]
        var_BC, mean_BC = torch.var_mean(x, spread, correction=0)
        mean = add_up(mean_BC, segment, len(sizes)) / images
        # σ² of a domain: what its images vary by, and what their means do
        var = add_up(var_BC + (mean_BC - mean[segment]).square(), segment, len(sizes)) / images
        inverse = torch.rsqrt(var + eps)
        scale = torch.stack(affine[: len(sizes)])
        bias = torch.stack(affine[len(sizes) :])
        normal = torch.addcmul(wide(-mean * inverse, segment, x), x, wide(inverse, segment, x))
        y = torch.addcmul(wide(bias, segment, x), normal, wide(scale, segment, x))
        ctx.save_for_backward(normal, scale * inverse, segment, images)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, and of every scale and bias."""
        g = grads[0]
        normal, slope, segment, images = ctx.saved_tensors
        spread = list(range(2, g.ndim))
        count = len(images)
        total = add_up(g.sum(spread), segment, count)
        along = add_up((g * normal).sum(spread), segment, count)
        each = slope / (images * (g[0, 0].numel()))  # of n numbers
        dx = torch.addcmul(wide(-total * each, segment, g), normal, wide(-along * each, segment, g))
        dx = torch.addcmul(dx, g, wide(slope, segment, g))
        return dx, None, None, *along.unbind(), *total.unbind()


def add_up(values_BC: Tensor, segment: Tensor, count: int) -> Tensor:
    """Rows added up by domain, (count, C)."""
    return values_BC.new_zeros(count, values_BC.shape[1]).index_add_(0, segment, values_BC)


def wide(rows: Tensor, segment: Tensor, like: Tensor) -> Tensor:
    """Each image's row, (B, C, 1, …)."""
    return rows[segment].view(*like.shape[:2], *[1] * (like.ndim - 2))


def fits(x: Tensor, slots: Sequence[nn.Module], sizes: Sequence[int]) -> bool:
    """Whether these are batch norms in training that this formula is right for."""
    if len(slots) < FEWEST or x.ndim < 3 or x.dtype not in (torch.float32, torch.float64):
        return False
    if torch.is_autocast_enabled(x.device.type):
        return False  # the norm itself knows which type to compute in
    if min(sizes) * x[0, 0].numel() == 1:
        return False  # no moments of one number: the norm itself says so
    for slot in slots:
        weight, kept = slot._parameters.get("weight"), slot._buffers.get("running_mean")
        if not slot.training or weight is None or slot._parameters.get("bias") is None:
            return False
        if weight.dtype != x.dtype or kept is None or getattr(slot, "momentum", None) is None:
            return False
    return True


def batch_norm(x: Tensor, slots: Sequence[Any], sizes: Sequence[int]) -> Tensor:
    """The sorted batch through its domains' batch norms; their running moments move."""
    affine = [slot.weight for slot in slots] + [slot.bias for slot in slots]
    counts = torch.tensor(sizes, device=x.device)
    y, mean, var = SegmentNorm.apply(x, counts, slots[0].eps, *affine)
    with torch.no_grad():
        n = (counts * x[0, 0].numel()).to(var.dtype)[:, None]
        rate = slots[0].momentum
        torch._foreach_lerp_([s.running_mean for s in slots], list(mean.unbind()), rate)
        unbiased = var * (n / (n - 1))
        torch._foreach_lerp_([s.running_var for s in slots], list(unbiased.unbind()), rate)
        torch._foreach_add_([s.num_batches_tracked for s in slots], 1)
    result: Tensor = y
    return result
