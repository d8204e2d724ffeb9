"""Ways through a network past its banks' slots: what they cost does not grow with the domains."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from onetrunk.nn.bank import Bank, Slots
from onetrunk.nn.norm_banks import Instance


def places(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module by its place, no domain's slots; twice what stands in two places."""
    yield path, module
    for key, child in module._modules.items():
        if child is not None and not isinstance(child, Slots):
            yield from places(child, f"{path}.{key}" if path else key)


def plain_tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of no domain by their names in the plain network: no slot, no trace of banks."""
    found: dict[str, Tensor] = {}
    module._save_to_state_dict(found, prefix, True)
    for key, child in module._modules.items():
        if child is None or isinstance(child, Slots):
            continue
        replaced = isinstance(module, (Bank, Instance)) and key == module.inner
        found |= plain_tensors(child, prefix if replaced else f"{prefix}{key}.")
    return found
