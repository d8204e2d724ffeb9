"""The interface of norm methods, and functions that their banks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.errors import BadInput
from onetrunk.nn.switch import Switch

# Named like norms, but part of the computation of a block.
_NOT_NORMS = ("GlobalResponseNorm", "L2Norm", "WeightNorm", "SpectralNorm")
OWN_STATISTICS = "takes statistics from each image itself"


class Norm(ABC):
    """A norm method. Class attributes declare what it needs and supports."""

    # Whether it replaces norm layers at all; such a method needs a trunk that has some.
    replaces_layers: ClassVar[bool] = True
    # Whether it needs norm layers that keep running statistics (batch norms).
    needs_running_statistics: ClassVar[bool] = False
    # Whether each domain has separate running statistics, which can be computed again.
    domain_statistics: ClassVar[bool] = False
    # Whether it normalizes by statistics of the batch in evaluation, too.
    batch_statistics: ClassVar[bool] = False
    # The minimum number of images of one domain in a prediction.
    min_images: ClassVar[int] = 1
    # Whether a network with it can be exported.
    exports: ClassVar[bool] = True
    # Whether a model with new slots has exactly the outputs of the plain trunk.
    starts_unchanged: ClassVar[bool] = False

    @abstractmethod
    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Return the replacement of a norm layer, or the layer itself."""


class UserNorm(Norm):
    """A user's function `thing(layer, path, switch)` as a norm method."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Call the user's function."""
        module: nn.Module = self.thing(layer, path, switch)
        return module


class Statistics(nn.Module):
    """The running mean and variance of one domain."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(key, getattr(layer, key).clone())


def is_norm(module: nn.Module) -> bool:
    """Return whether this is a norm layer of torch or timm, or one by its name and parameters."""
    name = type(module).__name__
    if any(word in name for word in _NOT_NORMS):
        return False
    known = isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm))
    # Affine is the norm of ResMLP: a scale and a bias without statistics.
    if not known and "Norm" not in name and name != "Affine":
        return False
    own = (*module._parameters.values(), *module._buffers.values())
    # A submodule with matrices: a layer that contains a norm.
    wide = any(p.ndim > 1 for child in module.children() for p in child.parameters())
    return any(tensor is not None for tensor in own) and not wide


def is_batch_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Return whether this is a batch norm that keeps running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def keeps_statistics(module: nn.Module) -> bool:
    """Return whether this module has running statistics, which training updates."""
    return is_batch_norm(module) or isinstance(module, Statistics)


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None, trailing: bool) -> Tensor:
    """Return scale·x + shift with one scale and shift (B, …) per image.

    Args:
        trailing: Whether the channels are the last dimensions, not dimension 1.
    """
    parts = []
    for part in (scale, shift):
        if part is not None:
            ones = [1] * (x.ndim - part.ndim)
            shape = [part.shape[0], *ones, *part.shape[1:]] if trailing else [*part.shape, *ones]
            part = part.view(shape)
        parts.append(part)
    a, c = parts
    dtype = x.dtype
    if a is not None and c is not None:
        y = torch.addcmul(c, x.to(a.dtype), a)
    else:
        y = x if a is None else x * a
        y = y if c is None else y + c
    return y.to(dtype)


def finish(layer: nn.Module, y: Tensor) -> Tensor:
    """Apply the dropout and the activation that some of timm's norms contain."""
    for key in ("drop", "act"):
        part = layer._modules.get(key)
        if part is not None:
            y = part(y)
    return y


def instance_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, path: str
) -> Tensor:
    """Normalize (B, C, …) by the mean and variance of each image and channel."""
    if x.ndim < 3 or x[0, 0].numel() == 1:
        raise map_too_small(path, "instance", x)
    return F.instance_norm(x, None, None, weight, bias, True, 0.0, eps)


def drop_statistics(layer: Any) -> Any:
    """Remove the running statistics of a batch norm, in place."""
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        layer._buffers[key] = None
    layer.track_running_stats = False
    return layer


def map_too_small(path: str, norm: str, x: Tensor) -> BadInput:
    """Return the error of a norm that would take statistics of a single number."""
    return BadInput(
        f"{path}: the norm {norm!r} needs maps larger than 1×1 pixel",
        got="×".join(map(str, x.shape[2:])) or "no map",
        try_="larger images, another trunk, or norm = 'domain'",
    )
