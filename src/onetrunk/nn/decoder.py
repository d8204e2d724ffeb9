"""The light multi-scale decoder of dense tasks, a feature pyramid (Lin et al. 2017).

From the coarsest map down to the finest, p_i = L_i(c_i) + up(p_{i+1}) with L_i a 1×1 convolution
to a small width and up bilinear to the finer map's own size (so odd sizes fit), then one 3×3
convolution, norm and ReLU on the finest. Of several maps with one reduction the deepest is taken.
A transformer's pyramid of one scale is one lateral and the 3×3.

A trunk that decodes by itself (SegNet) has no use for a second decoder: its last map is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.errors import BadInput

WIDTH = 64  # channels of the decoder's maps
FINEST = 2  # no map finer than half the input's side is decoded, where the trunk has a coarser one


class Decoder(nn.Module):
    """A pyramid of maps to one map of `width` channels at the finest decoded scale."""

    def __init__(self, pyramid: Sequence[tuple[int, int]], width: int = WIDTH) -> None:
        """`pyramid`: channels and reduction of each map, finest first."""
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
        """Maps (B, C_i, h_i, w_i), finest first, to (B, width, h, w) at the finest level."""
        merged: Tensor | None = None
        for level, lateral in zip(reversed(self.levels), reversed(self.laterals), strict=True):
            here: Tensor = lateral(pyramid[level])
            if merged is not None:
                here = here + F.interpolate(
                    merged, size=here.shape[-2:], mode="bilinear", align_corners=False
                )
            merged = here
        out: Tensor = self.act(self.norm(self.conv(merged)))
        return out


class Taken(nn.Module):
    """In the decoder's place where the trunk decodes by itself: its last map, as it is."""

    def __init__(self, pyramid: Sequence[tuple[int, int]]) -> None:
        """`pyramid`: channels and reduction of each map."""
        super().__init__()
        self.width = pyramid[-1][0]
        self.levels = (len(pyramid) - 1,)

    def forward(self, pyramid: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor:
        """Maps to the last one."""
        return pyramid[self.levels[0]]


def choose_levels(reductions: Sequence[int]) -> tuple[int, ...]:
    """Which maps of a pyramid are decoded, finest first: the deepest of each reduction ≥ FINEST."""
    if not reductions:
        raise BadInput("dense tasks need a trunk with feature maps", got="a trunk without any")
    deepest: dict[int, int] = {}
    for level, reduction in enumerate(reductions):
        deepest[reduction] = level
    coarse = {r: level for r, level in deepest.items() if r >= FINEST}
    return tuple(level for _, level in sorted((coarse or deepest).items()))
