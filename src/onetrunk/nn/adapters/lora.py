"""`lora`: y = f(x) + B∗(A∗x), A of f's own shape to r channels (Hu et al. 2022)."""

from __future__ import annotations

import copy

from torch import nn

from onetrunk.nn.adapters._branches import low_rank, rank_for
from onetrunk.nn.adapters.parallel import Parallel, ParallelAdapters


class LoRA(ParallelAdapters):
    """A low-rank branch beside the layer."""

    def make(self, layer: nn.Conv2d | nn.Linear, rank: int | None) -> Parallel | None:
        """Return a pair of the layer's own kernel size; None for grouped and special layers."""
        if isinstance(layer, nn.Linear):
            return super().make(layer, rank)
        # a layer with more tensors than a kernel and a bias computes something else
        if layer.groups != 1 or layer.state_dict().keys() - {"weight", "bias"}:
            return None
        if max(layer.kernel_size) == 1:
            return super().make(layer, rank)
        channels = rank_for(layer.in_channels, layer.out_channels, rank)
        down = copy.deepcopy(layer)  # with its kernel size, stride, padding and dilation
        down.out_channels, down.bias = channels, None
        down.weight = nn.Parameter(down.weight.detach().new_empty(channels, *down.weight.shape[1:]))
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)
        return Parallel(low_rank(down, layer.out_channels))


ADAPTER = LoRA
