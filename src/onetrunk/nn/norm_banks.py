"""Banks of norms: y = s·(x − μ)/√(σ² + ε) + b, with s, b and μ, σ² shared or each domain's own.

Domain-specific batch normalisation: Bilen & Vedaldi 2017 (statistics and affine), Chang et al. 2019.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn.bank import Bank, strip
from onetrunk.nn.switch import Switch

Family = Literal["batch", "channel", "trailing"]  # what a norm is over, and where its channels are


class DomainNorm(Bank):
    """`domain`: scale, bias and statistics (where there are any) of each domain.

    A slot is a copy of the layer itself, so that any norm will do, with the activation that some
    carry. A mixed batch goes by one gather where the norm's formula is known (`family`): with
    a = s/√(σ²+ε) and c = b − μ·a, y = a[d]·x + c[d] for statistics that are kept; for those computed
    from the image, the bare norm first.
    """

    origin: Any

    def __init__(self, layer: nn.Module, where: str, switch: Switch, family: Family | None) -> None:
        super().__init__(where, switch)
        self.origin = layer.requires_grad_(False)
        known = {"weight", "bias", "running_mean", "running_var"}
        self.keys = [key for key, t in layer.state_dict().items() if t.is_floating_point()]
        self.family = family if set(self.keys) <= known else None
        self.bare = strip(layer) if self.family in ("channel", "trailing") else None

    def make_slot(self) -> nn.Module:
        """A copy of the layer that this bank replaced."""
        slot: nn.Module = copy.deepcopy(self.origin)
        return slot.requires_grad_(True).train(self.training)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """The slot is the layer."""
        return self.slot(slot)(x)  # type: ignore[no-any-return]

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """One multiply-add with each image's own scale and shift."""
        if self.family is None or (self.family == "batch" and self.training):
            return None
        of = dict(zip(self.keys, self.take(index), strict=True))
        scale, shift = of.get("weight"), of.get("bias")
        if self.family == "batch":
            if "running_var" not in of:
                return None
            factor = torch.rsqrt(of["running_var"] + self.origin.eps)
            scale = factor if scale is None else scale * factor
            shift = (
                -of["running_mean"] * scale
                if shift is None
                else (torch.addcmul(shift, of["running_mean"], scale, value=-1))
            )
        elif self.bare is not None:
            x = self.bare(x)
        return after(self.origin, affine(x, scale, shift, trailing=self.family == "trailing"))

    def resolve(self, name: str) -> nn.Module:
        """The slot's copy."""
        return copy.deepcopy(self.slots[name])


class Stats(nn.Module):
    """One domain's running mean and variance."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(key, getattr(layer, key).clone())


class DomainStats(Bank):
    """`domain-stats`: running statistics of each domain, one scale and bias for all."""

    origin: Any

    def __init__(self, layer: nn.Module, where: str, switch: Switch) -> None:
        super().__init__(where, switch)
        self.origin = layer  # its scale and bias are the shared ones

    def make_slot(self) -> nn.Module:
        """The statistics that the layer came with."""
        return Stats(self.origin).train(self.training)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """As torch's batch norm, with this slot's statistics."""
        mine, layer = self.slot(slot), self.origin
        rate = layer.momentum if layer.momentum is not None else 0.0
        if mine.training:
            mine.num_batches_tracked.add_(1)
            if layer.momentum is None:  # a cumulative average
                rate = 1.0 / float(mine.num_batches_tracked)
        y = F.batch_norm(
            x,
            mine.running_mean,
            mine.running_var,
            layer.weight,
            layer.bias,
            mine.training,
            rate,
            layer.eps,
        )
        return after(layer, y)

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """As `domain`'s, with one scale and bias."""
        if self.training:
            return None
        mean, var = self.take(index)
        scale = torch.rsqrt(var + self.origin.eps)
        if self.origin.weight is not None:
            scale = scale * self.origin.weight
        shift = -mean * scale
        if self.origin.bias is not None:
            shift = shift + self.origin.bias
        return after(self.origin, affine(x, scale, shift, trailing=False))

    def resolve(self, name: str) -> nn.Module:
        """The layer with this domain's statistics."""
        plain: nn.Module = copy.deepcopy(self.origin)
        plain.load_state_dict(self.slots[name].state_dict(), strict=False)
        return plain


class SharedBatch(Bank):
    """`shared-batch`: one scale and bias, no statistics kept: each domain's batch has its own.

    Nothing here belongs to a domain, but a mixed batch must be cut: its statistics are not theirs.
    """

    origin: Any

    def __init__(self, layer: nn.Module, where: str, switch: Switch) -> None:
        super().__init__(where, switch)
        self.origin = forget(layer)

    def make_slot(self) -> None:
        """Nothing is a domain's own."""

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """By the statistics of what came."""
        if x[0, 0].numel() == 1:
            raise too_small(self.where, "shared-batch", x)
        y: Tensor = self.origin(x)
        return y

    def resolve(self, name: str) -> nn.Module:
        """The layer, still without statistics."""
        plain: nn.Module = copy.deepcopy(self.origin)
        return plain


class Instance(nn.Module):
    """`instance`: each image by its own statistics, one scale and bias (Ulyanov et al. 2016)."""

    inner = "origin"

    origin: Any

    def __init__(self, layer: nn.Module, where: str) -> None:
        super().__init__()
        self.where = where
        self.origin = forget(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Each channel of each image to its own scale."""
        return instance(x, self.origin, self.origin.weight, self.origin.bias, self.where)


class Affine(nn.Module):
    """One domain's scale and bias."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())


class InstanceDomain(Bank):
    """`instance-domain`: each image by its own statistics, scale and bias of each domain."""

    origin: Any

    def __init__(self, layer: nn.Module, where: str, switch: Switch) -> None:
        super().__init__(where, switch)
        self.origin = forget(layer).requires_grad_(False)

    def make_slot(self) -> nn.Module:
        """The layer's scale and bias."""
        return Affine(self.origin.weight, self.origin.bias)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Each image by its own statistics, this slot's scale and bias."""
        mine = self.slot(slot)
        return instance(x, self.origin, mine.weight, mine.bias, self.where)

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """Normalised together, scaled each by its own."""
        scale, shift = self.take(index)
        bare = instance(x, None, None, None, self.where, self.origin.eps)
        return after(self.origin, affine(bare, scale, shift, trailing=False))

    def resolve(self, name: str) -> nn.Module:
        """An instance norm with this domain's scale and bias."""
        plain = Instance(copy.deepcopy(self.origin), self.where)
        mine: Any = self.slots[name]
        with torch.no_grad():
            plain.origin.weight.copy_(mine.weight)
            plain.origin.bias.copy_(mine.bias)
        return plain


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None, trailing: bool) -> Tensor:
    """scale·x + shift with a scale (B, …) for each image, over trailing dimensions or channels."""
    parts = []
    for part in (scale, shift):
        if part is not None:
            ones = [1] * (x.ndim - part.ndim)
            shape = [part.shape[0], *ones, *part.shape[1:]] if trailing else [*part.shape, *ones]
            part = part.view(shape)
        parts.append(part)
    a, c = parts
    kind = x.dtype
    if a is not None and c is not None:
        y = torch.addcmul(c, x.to(a.dtype), a)
    else:
        y = x if a is None else x * a
        y = y if c is None else y + c
    return y.to(kind)


def after(layer: nn.Module, y: Tensor) -> Tensor:
    """The dropout and activation that some of timm's norms carry."""
    for key in ("drop", "act"):
        also = layer._modules.get(key)
        if also is not None:
            y = also(y)
    return y


def instance(
    x: Tensor,
    layer: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    where: str,
    eps: float = 1e-5,
) -> Tensor:
    """(B, C, …) by each image's and channel's own mean and variance."""
    if x.ndim < 3 or x[0, 0].numel() == 1:
        raise too_small(where, "instance", x)
    if layer is None:
        return F.instance_norm(x, None, None, None, None, True, 0.0, eps)
    return after(layer, F.instance_norm(x, None, None, weight, bias, True, 0.0, layer.eps))


def forget(layer: Any) -> Any:
    """A batch norm that keeps no statistics."""
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        layer._buffers[key] = None
    layer.track_running_stats = False
    return layer


def too_small(where: str, norm: str, x: Tensor) -> Exception:
    """What to say of a norm that has one number to take statistics of."""
    return BadInput(
        f"{where}: the norm {norm!r} needs maps larger than 1×1 pixel here",
        got="×".join(map(str, x.shape[2:])) or "no map",
        try_="larger images, another trunk, or norm = 'domain'",
    )
