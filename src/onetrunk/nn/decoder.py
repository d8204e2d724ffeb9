"""The multi-scale decoder of dense tasks, a feature pyramid (Lin et al. 2017).

From the coarsest map to the finest, p_i = L_i(c_i) + up(p_{i+1}), where L_i is a 1×1 convolution to
a small width, and `up` resizes bilinearly to the size of the finer map (so odd sizes fit); then one
3×3 convolution, norm and ReLU on the finest. Of several maps with one reduction the deepest is
used. For a transformer, whose maps have one scale, this is one lateral and the 3×3.

A trunk that contains a decoder (SegNet) needs no second one: its last map is used directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.errors import BadInput

WIDTH = 64  # channels of the decoder's maps
FINEST = 2  # the smallest reduction that is decoded, if the trunk has coarser maps


class Decoder(nn.Module):
    """Merges a pyramid of maps into one of `width` channels at the finest decoded scale.

    Args:
        pyramid: The channels and reduction of each map, finest first.
    """

    def __init__(self, pyramid: Sequence[tuple[int, int]], width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.levels = choose_levels([reduction for _, reduction in pyramid])
        self.laterals = nn.ModuleList(
            nn.Conv2d(pyramid[level][0], width, 1, bias=False) for level in self.levels
        )
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, pyramid: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor:
        """Map (B, C_i, h_i, w_i), finest first, to (B, width, h, w) at the finest level."""
        merged: Tensor | None = None
        for level, lateral in zip(reversed(self.levels), reversed(self.laterals), strict=True):
            x: Tensor = lateral(pyramid[level])
            if merged is not None:
                x = x + F.interpolate(
                    merged, size=x.shape[-2:], mode="bilinear", align_corners=False
                )
            merged = x
        out: Tensor = self.act(self.norm(self.conv(merged)))
        return out


class LastMap(nn.Module):
    """Returns the last map: used in place of `Decoder` if the trunk contains a decoder.

    Args:
        pyramid: The channels and reduction of each map.
    """

    def __init__(self, pyramid: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.width = pyramid[-1][0]
        self.levels = (len(pyramid) - 1,)

    def forward(self, pyramid: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor:
        """Return the last map."""
        return pyramid[self.levels[0]]


def choose_levels(reductions: Sequence[int]) -> tuple[int, ...]:
    """Return the maps of a pyramid to decode, finest first: the deepest of each scale."""
    if not reductions:
        raise BadInput("dense tasks need a trunk with feature maps", got="a trunk without any")
    deepest: dict[int, int] = {}
    for level, reduction in enumerate(reductions):
        deepest[reduction] = level
    coarse = {r: level for r, level in deepest.items() if r >= FINEST}
    return tuple(level for _, level in sorted((coarse or deepest).items()))
