"""`instance`: each image is normalized by its own statistics (Ulyanov et al. 2016)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from onetrunk.nn.bank import Replacement
from onetrunk.nn.norms._base import (
    OWN_STATISTICS,
    Norm,
    drop_statistics,
    finish,
    instance_norm,
    is_batch_norm,
)
from onetrunk.nn.switch import Switch


class InstanceNorm(Replacement):
    """Normalization by each image and channel, with the scale and bias of a batch norm."""

    why_not_folded = OWN_STATISTICS
    origin: Any

    def __init__(self, layer: nn.Module, path: str) -> None:
        super().__init__()
        self.path = path
        self.origin = drop_statistics(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each image of (B, C, …) by itself."""
        layer = self.origin
        y = instance_norm(x, layer.weight, layer.bias, layer.eps, self.path)
        return finish(layer, y)


class Instance(Norm):
    """Scale and bias are shared, and no statistics are kept."""

    needs_running_statistics = True

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Replace batch norms; other norms stay."""
        return InstanceNorm(layer, path) if is_batch_norm(layer) else layer


NORM = Instance
