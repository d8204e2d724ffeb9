"""`instance-domain`: each image is normalized by itself; each domain owns scale and bias."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.norms._base import (
    Norm,
    affine,
    drop_statistics,
    finish,
    instance_norm,
    is_batch_norm,
)
from onetrunk.nn.norms.domain import DomainNorm
from onetrunk.nn.norms.instance import InstanceNorm
from onetrunk.nn.switch import Switch


class Affine(nn.Module):
    """The scale and bias of one domain."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())


class InstanceDomainBank(Bank):
    """Normalization by each image and channel, with scale and bias by domain."""

    is_template = True
    origin: Any

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.origin = drop_statistics(layer).requires_grad_(False)

    def make_slot(self) -> nn.Module:
        """Return a copy of the layer's scale and bias."""
        return Affine(self.origin.weight, self.origin.bias)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Normalize each image by itself, with the scale and bias of this slot."""
        own = self.required(slot)
        y = instance_norm(x, own.weight, own.bias, self.origin.eps, self.path)
        return finish(self.origin, y)

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """Normalize all images, then compute one multiply-add with the scale and bias of each."""
        scale, shift = self.take(index)
        bare = instance_norm(x, None, None, self.origin.eps, self.path)
        return finish(self.origin, affine(bare, scale, shift, trailing=False))

    def resolve(self, name: str) -> nn.Module:
        """Return an instance norm with a copy of this domain's scale and bias."""
        plain = InstanceNorm(copy.deepcopy(self.origin), self.path)
        own: Any = self.slots[name]
        with torch.no_grad():
            plain.origin.weight.copy_(own.weight)
            plain.origin.bias.copy_(own.bias)
        return plain


class InstanceDomain(Norm):
    """Batch norms become instance norms; of other norms each domain has a copy."""

    needs_running_statistics = True

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Replace any norm; without scale and bias nothing differs by domain."""
        if not is_batch_norm(layer):
            return DomainNorm(layer, path, switch)
        if layer.weight is None or layer.bias is None:
            return InstanceNorm(layer, path)
        return InstanceDomainBank(layer, path, switch)


NORM = InstanceDomain
