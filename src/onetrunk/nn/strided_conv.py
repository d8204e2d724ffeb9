"""A 1×1 convolution with a stride: the pixels that it reads are taken first.

The same map as with the stride inside, but oneDNN (as of PyTorch 2.15) writes past its buffer in
that one's weight gradient for channels_last images of few channels: wrong gradients, or a crash
(https://github.com/uxlfoundation/oneDNN/issues/6035). An adapter beside a strided stem is such.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Thinned(nn.Conv2d):
    """A pointwise convolution over every s-th pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Without padding or dilation, which a 1×1 has no use for."""
        return F.conv2d(thin(x, self.stride), self.weight, self.bias, groups=self.groups)


def thin(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Every s-th pixel, from the first on; all of them of a stride of 1."""
    down, across = stride
    return x if down == across == 1 else x[:, :, ::down, ::across]


def pointwise(inside: int, out: int, stride: Sequence[int], groups: int = 1) -> nn.Conv2d:
    """A 1×1 without bias."""
    kind = nn.Conv2d if tuple(stride) == (1, 1) else Thinned
    return kind(inside, out, 1, (stride[0], stride[1]), groups=groups, bias=False)


def is_pointwise(module: nn.Module) -> bool:
    """Whether it is a 1×1 and nothing else."""
    plain = type(module) in (nn.Conv2d, Thinned)
    return plain and getattr(module, "kernel_size", None) == (1, 1)
