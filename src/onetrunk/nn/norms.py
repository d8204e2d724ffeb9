"""The six norms by name: which layers are norms, and what takes their place.

| name | scale, bias | statistics | at test time |
|---|---|---|---|
| `shared` | one | one running average | running average |
| `shared-batch` | one | none kept | the batch's own |
| `domain-stats` | one | each domain's | running average |
| `domain` | each domain's | each domain's | running average |
| `instance` | one | none kept | each image's own |
| `instance-domain` | each domain's | none kept | each image's own |

A norm of the user's own, "package.module:thing", is called as `thing(layer, where, switch)` with
each norm of the trunk and returns what takes its place: a `Bank`, a plain module, or the layer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.errors import BadInput
from onetrunk.nn.norm_banks import (
    DomainNorm,
    DomainStats,
    Family,
    Instance,
    InstanceDomain,
    SharedBatch,
)
from onetrunk.nn.switch import Switch

NORMS = ("shared", "shared-batch", "domain-stats", "domain", "instance", "instance-domain")
STATS = ("shared-batch", "domain-stats", "instance", "instance-domain")  # need batch norms

MakeNorm = Callable[[nn.Module, str, Switch], nn.Module]

# Norm in name, but part of a block's own computation rather than of its normalisation.
_NOT = ("GlobalResponseNorm", "L2Norm", "WeightNorm", "SpectralNorm")
_CHANNEL = ("2d", "GroupNorm", "2D")  # of names: channels at dimension 1


def is_norm(module: nn.Module) -> bool:
    """Whether this layer normalises: torch's, timm's, or one that is called so and has a scale."""
    name = type(module).__name__
    if any(word in name for word in _NOT):
        return False
    if isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)):
        named = True
    else:
        # Affine (ResMLP) is that network's norm: a scale and a bias without statistics.
        named = "Norm" in name or name == "Affine"
    if not named:
        return False
    mine = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    below = [p for child in module.children() for p in child.parameters() if is_wide(p)]
    return bool(mine) and not below


def is_wide(parameter: Any) -> bool:
    """Whether this is more than one number a channel (an activation's slope is not)."""
    return bool(parameter.ndim > 1)


def keeps_stats(module: nn.Module) -> bool:
    """Whether this is a batch norm with running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def family(layer: nn.Module) -> Family | None:
    """Where this norm's formula is known, what it is over; None: only the layer itself knows."""
    name = type(layer).__name__
    if isinstance(layer, _BatchNorm):
        return "batch"
    if isinstance(layer, nn.GroupNorm):
        return "channel"
    if isinstance(layer, nn.LayerNorm) and type(layer).__module__.split(".")[0] in (
        "torch",
        "timm",
    ):
        return "channel" if "2d" in name else "trailing"
    if name in ("RmsNorm", "RmsNormFp32", "RmsNormAct", "RMSNorm"):
        return "trailing"
    if name in ("RmsNorm2d", "RmsNorm2dFp32", "RmsNormAct2d"):
        return "channel"
    return None


def make_norm(norm: str, layer: nn.Module, where: str, switch: Switch) -> nn.Module:
    """What takes this layer's place under this norm; the layer itself where nothing changes."""
    if ":" in norm:
        return load(norm, "norm", NORMS)(layer, where, switch)  # type: ignore[no-any-return]
    if norm == "shared":
        return layer
    if not keeps_stats(layer):
        # Beside batch norms, other norms follow for their scale and bias.
        if norm in ("domain", "instance-domain"):
            return DomainNorm(layer, where, switch, family(layer))
        return layer
    if norm == "domain":
        return DomainNorm(layer, where, switch, family(layer))
    if norm == "domain-stats":
        return DomainStats(layer, where, switch)
    if norm == "shared-batch":
        return SharedBatch(layer, where, switch)
    if norm == "instance":
        return Instance(layer, where)
    if getattr(layer, "weight", None) is None or getattr(layer, "bias", None) is None:
        return Instance(layer, where)
    return InstanceDomain(layer, where, switch)


def check_norm(norm: str, arch: str, layers: list[nn.Module]) -> None:
    """Refuse, with the reason, a norm that a trunk with these norm layers cannot have."""
    if ":" in norm:
        load(norm, "norm", NORMS)
        return
    if norm not in NORMS:
        raise BadInput("unknown norm", got=norm, available=NORMS, try_="or package.module:thing")
    if norm == "shared":
        return
    if not layers:
        raise BadInput(
            f"{arch} has no norm layers that a domain could own (networks with standardised "
            "weights normalise those instead)",
            got=norm,
            try_="norm = 'shared', with adapters if domains shall differ",
        )
    if norm in STATS and not any(map(keeps_stats, layers)):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        raise BadInput(
            f"{arch} keeps no running statistics (its norms: {kinds}): {norm!r} has no meaning there",
            got=norm,
            available=("shared", "domain"),
            try_="norm = 'domain'",
        )


def load(name: str, what: str, exists: tuple[str, ...]) -> Any:
    """The thing that "package.module:thing" names."""
    module, _, thing = name.partition(":")
    try:
        return getattr(importlib.import_module(module), thing)
    except ImportError as error:
        raise BadInput(
            f"{what} {name!r}: cannot import {module}: {error}", available=exists
        ) from None
    except AttributeError:
        raise BadInput(f"{what} {name!r}: {module} has no {thing!r}", available=exists) from None
