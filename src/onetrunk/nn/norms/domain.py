"""`domain`: each domain owns scale, bias and running statistics."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.nn.bank import CopyBank
from onetrunk.nn.norms._base import Norm, affine, finish
from onetrunk.nn.switch import Switch

Family = Literal["batch", "channel", "trailing"]  # what it normalizes over, and where channels are
_STATE = {"weight", "bias", "running_mean", "running_var"}


class DomainNorm(CopyBank):
    """Norm layers by domain, each a copy of the replaced one.

    This works for any norm, including an activation that some contain. If the formula is known
    (`family_of`), a mixed batch runs in one gather. With running statistics, y = a[d]·x + c[d] for
    a = s/√(σ²+ε) and c = b − μ·a; with statistics of each image, the norm without scale and bias
    runs first.
    """

    normalizes_batches = True

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(layer, path, switch)
        self.keys = [key for key, t in layer.state_dict().items() if t.is_floating_point()]
        self.family = family_of(layer) if set(self.keys) <= _STATE else None
        self.bare = _strip(layer) if self.family in ("channel", "trailing") else None

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """Compute one multiply-add with the scale and shift of each image."""
        if self.family is None or (self.family == "batch" and self.training):
            return None
        tensors = dict(zip(self.keys, self.take(index), strict=True))
        scale, shift = tensors.get("weight"), tensors.get("bias")
        if self.family == "batch":
            if "running_var" not in tensors:
                return None
            mean = tensors["running_mean"]
            factor = torch.rsqrt(tensors["running_var"] + self.origin.eps)
            scale = factor if scale is None else scale * factor
            shift = -mean * scale if shift is None else torch.addcmul(shift, mean, scale, value=-1)
        elif self.bare is not None:
            x = self.bare(x)
        return finish(self.origin, affine(x, scale, shift, trailing=self.family == "trailing"))


def family_of(layer: nn.Module) -> Family | None:
    """Return the family of a norm whose formula is known; None for any other."""
    name = type(layer).__name__
    if isinstance(layer, _BatchNorm):
        return "batch"
    if isinstance(layer, nn.GroupNorm):
        return "channel"
    library = type(layer).__module__.split(".")[0]
    if isinstance(layer, nn.LayerNorm) and library in ("torch", "timm"):
        return "channel" if "2d" in name else "trailing"
    if name in ("RmsNorm", "RmsNormFp32", "RmsNormAct", "RMSNorm"):
        return "trailing"
    if name in ("RmsNorm2d", "RmsNorm2dFp32", "RmsNormAct2d"):
        return "channel"
    return None


def _strip(layer: nn.Module) -> nn.Module:
    """Return a copy of a norm without scale, bias, dropout and activation."""
    bare = copy.deepcopy(layer)
    for key in ("weight", "bias"):
        if key in bare._parameters:
            bare._parameters[key] = None
    for key in ("drop", "act"):
        if key in bare._modules:
            bare._modules[key] = nn.Identity()
    return bare


class Domain(Norm):
    """Each domain has a copy of every norm layer, of whatever kind."""

    domain_statistics = True
    starts_unchanged = True

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Replace any norm."""
        return DomainNorm(layer, path, switch)


NORM = Domain
