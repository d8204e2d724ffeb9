"""`domain-stats`: each domain owns running statistics; scale and bias are shared."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.norms._base import Norm, Statistics, affine, finish, is_batch_norm
from onetrunk.nn.switch import Switch


class StatisticsBank(Bank):
    """Running statistics by domain beside one scale and bias, those of the replaced batch norm."""

    normalizes_batches = True
    origin: Any

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.origin = layer

    def make_slot(self) -> nn.Module:
        """Return a copy of the layer's statistics."""
        return Statistics(self.origin).train(self.training)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Run torch's batch norm with the statistics of this slot."""
        own, layer = self.required(slot), self.origin
        momentum = layer.momentum if layer.momentum is not None else 0.0
        if own.training:
            own.num_batches_tracked.add_(1)
            if layer.momentum is None:  # a cumulative average
                momentum = 1.0 / float(own.num_batches_tracked)
        y = F.batch_norm(
            x,
            own.running_mean,
            own.running_var,
            layer.weight,
            layer.bias,
            own.training,
            momentum,
            layer.eps,
        )
        return finish(layer, y)

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """Compute one multiply-add with the scale and shift of each image."""
        if self.training:
            return None
        mean, var = self.take(index)
        scale = torch.rsqrt(var + self.origin.eps)
        if self.origin.weight is not None:
            scale = scale * self.origin.weight
        shift = -mean * scale
        if self.origin.bias is not None:
            shift = shift + self.origin.bias
        return finish(self.origin, affine(x, scale, shift, trailing=False))

    def resolve(self, name: str) -> nn.Module:
        """Return a copy of the layer with the statistics of this domain."""
        plain: nn.Module = copy.deepcopy(self.origin)
        plain.load_state_dict(self.slots[name].state_dict(), strict=False)
        return plain


class DomainStats(Norm):
    """Batch norms have statistics by domain; norms without running statistics stay shared."""

    needs_running_statistics = True
    domain_statistics = True
    starts_unchanged = True

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Replace batch norms; other norms stay."""
        return StatisticsBank(layer, path, switch) if is_batch_norm(layer) else layer


NORM = DomainStats
