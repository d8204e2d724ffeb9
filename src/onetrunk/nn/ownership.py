"""Who owns what: the tensors of one domain, and the parameters that all share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.norm_banks import DomainNorm, InstanceDomain
from onetrunk.nn.own_stages import OwnStage

if TYPE_CHECKING:
    from onetrunk.nn.universal import Universal


def own(model: Universal, name: str) -> dict[str, Tensor]:
    """A domain's own tensors: `slots/LAYER/…`, `heads/…`, and `trunk/…` where it shares nothing."""
    mine: dict[str, Tensor] = {}
    for path, bank in model.trunk.banks().items():
        slot = bank.slots.get(name)
        if slot is not None:
            for key, value in slot.state_dict(keep_vars=True).items():
                mine[f"slots/{path}/{key}"] = value
    for key, value in model.heads[name].state_dict(keep_vars=True).items():
        mine[f"heads/{key}"] = value
    if model.trunk.sharing == "none":
        kept = _kept(model)
        shared_too = model.trunk.shared().items()
        mine |= {f"trunk/{key}": value for key, value in shared_too if id(value) not in kept}
    return mine


def shared(model: Universal) -> dict[str, nn.Parameter]:
    """The parameters that no domain owns and that may learn."""
    named = {} if model.trunk.sharing == "none" else model.trunk.shared()
    for key, value in model.together.state_dict(keep_vars=True).items():
        named[f"heads/{key}"] = value
    kept = _kept(model)
    return {k: v for k, v in named.items() if isinstance(v, nn.Parameter) and id(v) not in kept}


def _kept(model: Universal) -> set[int]:
    return {id(p) for bank in model.trunk.banks().values() for p in _templates(bank)}


def _templates(bank: Bank) -> Iterator[nn.Parameter]:
    """What a bank keeps only for new slots to start from."""
    if isinstance(bank, DomainNorm | InstanceDomain | OwnStage):
        yield from bank.origin.parameters()
