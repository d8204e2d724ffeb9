"""The built-in trunks: residual networks of the papers as plain modules, and SegNet (segnet.py).

| name | paper | stem | stages (channels × units) |
|---|---|---|---|
| `resnet20` | He et al. 2016 (CIFAR) | 3×3, 16 | 16 × 3, 32 × 3, 64 × 3 |
| `resnet26` | Rebuffi et al. 2017 (Visual Decathlon) | 3×3, 32 | 64 × 4, 128 × 4, 256 × 4 |
| `resnet38` | Bilen & Vedaldi 2017 | 3×3, 16 | 16 × 4, 32 × 4, 128 × 4, 256 × 4 |
| `resnet18-84` | Li et al. 2021 (Meta-Dataset) | 5×5/2, 64 | 64, 128, 256, 512, each × 2 |

A unit is y = ReLU(norm(conv(ReLU(norm(conv(x))))) + shortcut(x)) with 3×3 convolutions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn.segnet import SegNet, Stage

ShortcutKind = Literal["slice", "pool", "project"]


class Shortcut(nn.Module):
    """The parameter-free shortcut of a unit that changes the shape: subsample, pad with zeros.

    `slice` keeps every second pixel (He et al. 2016, option A); `pool` averages 2×2 (Rebuffi et al.
    2017; an odd last row or column is averaged over fewer pixels).
    """

    def __init__(self, more: int, stride: int, kind: ShortcutKind) -> None:
        super().__init__()
        self.more, self.stride, self.kind = more, stride, kind

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C + more, ⌈H/stride⌉, ⌈W/stride⌉)."""
        x = x_BCHW
        if self.stride > 1:
            if self.kind == "pool":
                x = F.avg_pool2d(x, self.stride, ceil_mode=True)
            else:
                x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.more)) if self.more else x


class Unit(nn.Module):
    """The basic residual unit: two 3×3 convolutions, each with its norm, and a shortcut."""

    def __init__(self, inside: int, out: int, stride: int, shortcut: ShortcutKind) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module
        if stride == 1 and inside == out:
            self.shortcut = nn.Identity()
        elif shortcut == "project":
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inside, out, 1, stride, bias=False), norm=nn.BatchNorm2d(out)
                )
            )
        else:
            self.shortcut = Shortcut(out - inside, stride, shortcut)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, out, H', W')."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x_BCHW)))))
        return self.act2(y + self.shortcut(x_BCHW))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Plan:
    stem: tuple[int, int, int, int]  # channels, kernel, stride, padding
    widths: tuple[int, ...]
    units: int  # per stage
    first: int  # stride of the first stage; that of later stages is 2
    shortcut: ShortcutKind
    stem_act: bool = True
    last_norm: bool = False


_PLANS: dict[str, _Plan] = {
    "resnet20": _Plan((16, 3, 1, 1), (16, 32, 64), 3, 1, "slice"),
    # As in the authors' code: no activation after the stem, and a norm after the last unit.
    "resnet26": _Plan((32, 3, 1, 1), (64, 128, 256), 4, 2, "pool", stem_act=False, last_norm=True),
    "resnet38": _Plan((16, 3, 1, 1), (16, 32, 128, 256), 4, 1, "slice"),
    # Padding 1 for a 5×5 kernel, as the published weights were trained: 84 → 41.
    "resnet18-84": _Plan((64, 5, 2, 1), (64, 128, 256, 512), 2, 1, "project"),
}

NAMES: tuple[str, ...] = (*_PLANS, "segnet")


class ResNet(nn.Module):
    """A residual trunk: `stem`, then `stage1`, `stage2`, …; He initialisation."""

    decoded = False

    def __init__(self, plan: _Plan, in_chans: int = 3) -> None:
        super().__init__()
        width, kernel, stride, padding = plan.stem
        stem: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(in_chans, width, kernel, stride, padding, bias=False),
            norm=nn.BatchNorm2d(width),
        )
        if plan.stem_act:
            stem["act"] = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(stem)
        stages = [Stage("stem", "stem", width, stride)]
        for index, out in enumerate(plan.widths, start=1):
            step = plan.first if index == 1 else 2
            units: OrderedDict[str, nn.Module] = OrderedDict()
            for unit in range(plan.units):
                units[f"unit{unit + 1}"] = Unit(
                    width if unit == 0 else out, out, step if unit == 0 else 1, plan.shortcut
                )
            if plan.last_norm and index == len(plan.widths):
                units["norm"], units["act"] = nn.BatchNorm2d(out), nn.ReLU(inplace=True)
            self.add_module(f"stage{index}", nn.Sequential(units))
            width, stride = out, stride * step
            stages.append(Stage(str(index), f"stage{index}", width, stride))
        self.stages: tuple[Stage, ...] = tuple(stages)
        self.num_features = width
        self.in_chans = in_chans
        self.apply(_he)

    def forward_pyramid(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the maps of all stages, the stem's first."""
        maps = []
        for stage in self.stages:
            x_BCHW = getattr(self, stage.module)(x_BCHW)
            maps.append(x_BCHW)
        return maps

    def pooled(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pixels of the last map, (B, num_features)."""
        return pyramid[-1].mean((2, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return pooled features, (B, num_features)."""
        return self.pooled(self.forward_pyramid(x_BCHW))


def _he(module: nn.Module) -> None:
    """He et al. 2015: weights of variance 2/(k²·C_out), which keeps the scale of gradients."""
    if isinstance(module, nn.Conv2d):
        n = math.prod(module.kernel_size) * module.out_channels
        with torch.no_grad():
            module.weight.normal_(0.0, math.sqrt(2.0 / n))


def build(name: str, in_chans: int = 3) -> ResNet | SegNet:
    """Return the built-in trunk of this name, initialized from torch's generator."""
    if name not in NAMES:
        raise BadInput(
            "unknown built-in trunk", got=name, available=NAMES, try_="timm/NAME for one of timm's"
        )
    if in_chans < 1:
        raise BadInput("expected at least one input channel", got=in_chans)
    return SegNet(in_chans) if name == "segnet" else ResNet(_PLANS[name], in_chans)
