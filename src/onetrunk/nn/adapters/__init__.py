"""Adapters: small trained layers that specialize a frozen layer f to one domain.

(Rebuffi et al. 2017, 2018)

| name | formula |
|---|---|
| `parallel` | y = f(x) + A∗x |
| `series` | z = f(x), y = z + A∗BN(z) |
| `lora` | y = f(x) + B∗(A∗x), A of f's own shape to r channels (Hu et al. 2022) |

The domain's norm after the layer takes the role of the outer BN of the papers. A, or B, starts at
zero, so a new adapter has no effect before it is trained. The form of A depends on f:

| f | parallel, series | lora |
|---|---|---|
| dense convolution, odd k > 1 | dense 1×1 | low-rank pair, k×k then 1×1 |
| pointwise convolution, linear | low-rank pair | low-rank pair |
| grouped or depthwise, odd k | 1×1 of the same groups | none |
| even k, or padding that is not (k−1)/2 | none | none |

With a `rank` r every pair has r channels, and a dense 1×1 becomes such a pair (the parallel
low-rank form of Rebuffi et al. 2018); a grouped 1×1 stays. The default rank is
max(4, min(in, out)/16).

Each method is one file of this package that binds `ADAPTER` to a subclass of `AdapterMethod`. A
user's adapter, "package.module:thing", is such a subclass, or a function that is called as
`thing(layer)` and returns None or a module, which is called as `adapter(x, y)` with the layer's
input and output; one that derives from `Adapter` can also be merged when the network is folded.
"""

from __future__ import annotations

from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.adapters._bank import AdapterBank
from onetrunk.nn.adapters._base import Adapted, Adapter, AdapterMethod, UserAdapter, Weights
from onetrunk.registry import Registry

__all__ = [
    "ADAPTERS",
    "NO_ADAPTERS",
    "Adapted",
    "Adapter",
    "AdapterBank",
    "AdapterMethod",
    "Weights",
    "adapter_names",
    "check_adapters",
    "check_rank",
    "find_adapter",
    "make_adapter",
]

NO_ADAPTERS = "none"
MAX_RANK = 4096
ADAPTERS = Registry[type[AdapterMethod]]("onetrunk.nn.adapters", "adapter")


def adapter_names() -> tuple[str, ...]:
    """Return every built-in value of `adapters`, "none" first."""
    return (NO_ADAPTERS, *ADAPTERS)


def find_adapter(name: str) -> AdapterMethod:
    """Return the adapter method of this name; "package.module:thing" is a user's."""
    method = ADAPTERS.load(name)
    if isinstance(method, type) and issubclass(method, AdapterMethod):
        return method()
    return UserAdapter(name, method)


def check_adapters(name: str) -> None:
    """Raise BadInput for an unknown value of `adapters`."""
    if name != NO_ADAPTERS:
        find_adapter(name)


def check_rank(name: str, rank: int | None) -> None:
    """Raise BadInput for a rank that no adapter of this method can have."""
    if rank is None:
        return
    if name == NO_ADAPTERS or not find_adapter(name).takes_rank:
        ranked = [each for each in ADAPTERS if find_adapter(each).takes_rank]
        raise BadInput(f"{name} adapters have no rank", got=rank, available=ranked)
    if not 1 <= rank <= MAX_RANK:
        raise BadInput(f"expected a rank from 1 to {MAX_RANK}", got=rank)


def make_adapter(name: str, layer: nn.Module, rank: int | None = None) -> nn.Module | None:
    """Return a new adapter for a layer, without effect at first; None if it takes none."""
    check_rank(name, rank)
    if name == NO_ADAPTERS:
        return None
    method = find_adapter(name)
    adapter = None if method.why_not(layer) else method.make(layer, rank)
    like = next(layer.parameters(), None)
    return adapter if adapter is None or like is None else adapter.to(like)
