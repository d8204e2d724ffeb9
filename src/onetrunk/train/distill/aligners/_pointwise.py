"""A network on channels that is applied to rows, or to every pixel of maps."""

from __future__ import annotations

from torch import Tensor, nn


class Pointwise(nn.Module):
    """Layers on the channels, initialized as in the papers (Xavier)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map rows (B, C), or every pixel of maps (B, C, h, w)."""
        mapped: Tensor = self.layers(features.movedim(1, -1))
        return mapped.movedim(-1, 1)
