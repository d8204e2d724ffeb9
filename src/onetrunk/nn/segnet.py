"""SegNet: an encoder of VGG-16's convolutions and a decoder that mirrors it.

Badrinarayanan, Kendall & Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", TPAMI 2017, in the widths that the multi-task papers run (Liu, Johns & Davison
2019; Li, Liu & Bilen 2022): 64-128-256-512-512, Xavier initialisation.

The encoder has five stages of two or three (3×3, norm, ReLU) and a 2×2 max-pool that records the
positions of the maxima. The decoder has five stages that put the pixels of their map at those
positions, zeros at the others, and convolve. At odd sizes the last pool is over fewer pixels. The
deepest map (reduction 32) is pooled for whole-image tasks; the last one (64 channels, full size) is
the input of dense heads.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)  # convolutions of a stage, down and up


@dataclass(frozen=True)
class Stage:
    """One stage of a built-in trunk: its name, its module, and its map."""

    name: str
    module: str  # the name of the submodule
    channels: int
    reduction: int  # input pixels per pixel of the map, along one side


class SegNet(nn.Module):
    """The trunk: `stem`, `down2` to `down5`, then `up5` to `up1`."""

    decoded = True  # the last map is the output of a decoder

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        stages: list[Stage] = []
        width = in_chans
        for index, (out, count) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            name = f"down{index + 1}" if index else "stem"
            self.add_module(name, _block([width] + [out] * count))
            stages.append(Stage(name, name, out, 2 ** (index + 1)))
            width = out
        for index in reversed(range(len(WIDTHS))):
            out = WIDTHS[max(index - 1, 0)]
            name = f"up{index + 1}"
            # as in the papers' code, the width decreases in the first convolution of a stage
            self.add_module(name, _block([width] + [out] * DEPTHS[index]))
            stages.append(Stage(name, name, out, 2**index))
            width = out
        self.stages: tuple[Stage, ...] = tuple(stages)
        self.num_features = WIDTHS[-1]
        self.in_chans = in_chans
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)

    def forward_pyramid(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the maps of all stages: the pooled ones of the encoder, then the decoder's."""
        half = len(self.stages) // 2
        maps: list[Tensor] = []
        places: list[tuple[Tensor, Sequence[int]]] = []
        for stage in self.stages[:half]:
            fine = getattr(self, stage.module)(x_BCHW)
            x_BCHW, place = pool(fine)
            places.append((place, fine.shape[-2:]))
            maps.append(x_BCHW)
        for stage in self.stages[half:]:
            x_BCHW = getattr(self, stage.module)(unpool(x_BCHW, *places.pop()))
            maps.append(x_BCHW)
        return maps

    def pooled(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pixels of the deepest map, (B, num_features)."""
        return pyramid[len(self.stages) // 2 - 1].mean((2, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return pooled features, (B, num_features)."""
        return self.pooled(self.forward_pyramid(x_BCHW))


def _block(widths: Sequence[int]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inside, out) in enumerate(itertools.pairwise(widths), start=1):
        layers[f"conv{index}"] = nn.Conv2d(inside, out, 3, padding=1, bias=False)
        layers[f"norm{index}"] = nn.BatchNorm2d(out)
        layers[f"act{index}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def pool(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2×2 maxima, (B, C, ⌈H/2⌉, ⌈W/2⌉), and which of the four pixels each was, 0 to 3."""
    maxima, index = F.max_pool2d(x_BCHW, 2, ceil_mode=True, return_indices=True)
    width = x_BCHW.shape[-1]
    place = index // width % 2 * 2 + index % width % 2
    return maxima, place.to(torch.uint8)


def unpool(y_BChw: Tensor, place_BChw: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, *size): each value at its position among four pixels, zeros at the others.

    Unlike torch's max_unpool2d, which scatters, this is deterministic and can be exported to ONNX.
    """
    height, width = size
    enlarged = F.interpolate(y_BChw, scale_factor=2.0, mode="nearest")[..., :height, :width]
    place = place_BChw.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]
    rows = torch.arange(height, device=place.device) % 2
    columns = torch.arange(width, device=place.device) % 2
    return enlarged * (place == rows[:, None] * 2 + columns)
