"""Norm methods: which of a norm's parts and statistics each domain owns.

| name | scale, bias | statistics | at test time |
|---|---|---|---|
| `shared` | one | one running average | running average |
| `shared-batch` | one | none kept | the batch's own |
| `domain-stats` | one | each domain's | running average |
| `domain` | each domain's | each domain's | running average |
| `instance` | one | none kept | each image's own |
| `instance-domain` | each domain's | none kept | each image's own |

y = s·(x − μ)/√(σ² + ε) + b. Domain-specific batch normalization: Bilen & Vedaldi 2017 (statistics
and affine), Chang et al. 2019.

Each method is one file of this package that binds `NORM` to a subclass of `Norm`. A user's norm,
"package.module:thing", is such a subclass, or a function that is called as
`thing(layer, path, switch)` with each norm layer of the trunk and returns its replacement: a
`Bank`, a plain module, or the layer itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.norms._base import (
    OWN_STATISTICS,
    Norm,
    Statistics,
    UserNorm,
    is_batch_norm,
    is_norm,
    keeps_statistics,
)
from onetrunk.registry import Registry

__all__ = [
    "NORMS",
    "OWN_STATISTICS",
    "Norm",
    "Statistics",
    "check_norm",
    "find_norm",
    "is_batch_norm",
    "is_norm",
    "keeps_statistics",
]

NORMS = Registry[type[Norm]]("onetrunk.nn.norms", "norm")


def find_norm(name: str) -> Norm:
    """Return the norm method of this name; "package.module:thing" is a user's."""
    method = NORMS.load(name)
    return method() if isinstance(method, type) and issubclass(method, Norm) else UserNorm(method)


def check_norm(name: str, arch: str, layers: Sequence[nn.Module]) -> None:
    """Raise BadInput for a norm that a trunk with these norm layers does not support."""
    method = find_norm(name)
    if isinstance(method, UserNorm) or not method.replaces_layers:
        return
    if not layers:
        raise BadInput(
            f"{arch} has no norm layers that a domain could own (networks with standardized "
            "weights normalize those instead)",
            got=name,
            try_="norm = 'shared', with adapters",
        )
    if method.needs_running_statistics and not any(map(is_batch_norm, layers)):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        raise BadInput(
            f"{arch} keeps no running statistics (its norms: {kinds}), which norm = {name!r} needs",
            got=name,
            available=[each for each in NORMS if not NORMS.load(each).needs_running_statistics],
            try_="norm = 'domain'",
        )
