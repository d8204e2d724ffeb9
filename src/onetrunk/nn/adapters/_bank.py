"""The bank of adapters: one shared layer, and an adapter for each domain that has one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.nn.adapters._base import Adapted, Adapter
from onetrunk.nn.bank import Bank
from onetrunk.nn.switch import Mixed, Switch


class AdapterBank(Bank):
    """A shared layer with an adapter per domain; a domain without one gets the layer's output."""

    inner = "layer"
    layer: Any

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.layer = layer
        self._batchable: bool | None = None  # None: not known

    def make_slot(self) -> None:
        """Return None: each domain has adapters of its choice, which `make_adapter` makes."""

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Run the layer, then the adapter, if there is one."""
        if isinstance(slot, Adapter):
            return slot.run(self.layer, x)
        y: Tensor = self.layer(x)
        return y if slot is None else slot(x, y)

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """Run the layer over the batch, then the adapters batched or by segment."""
        choice = self.switch.read()
        segments = choice if isinstance(choice, Mixed) and choice.names else None
        first: Any = next((self.slots[name] for name in self.slots), None)
        if first is None:
            return self.layer(x)  # type: ignore[no-any-return]
        batched = isinstance(first, Adapter) and self._can_batch(type(first))
        if batched and (segments is None or not first.faster_by_segment(self.layer)):
            y: Tensor = first.batched(x, self.layer(x), self.take(index))
            return y
        return None if segments is None else self._segments(x, self.layer(x), segments)

    def _can_batch(self, kind: type[Adapter]) -> bool:
        """Return whether all adapters can be batched; the result is kept until slots change."""
        if torch.compiler.is_compiling():  # a stored result would compile the graph again
            return kind.can_batch([self.slots[name] for name in self.slots])
        if self._batchable is None:
            self._batchable = kind.can_batch([self.slots[name] for name in self.slots])
        return self._batchable

    def clear_cache(self) -> None:
        """Drop cached values that depend on the slots."""
        super().clear_cache()
        self._batchable = None

    def by_segment(self, x: Tensor, choice: Mixed) -> Tensor:
        """Run the layer over the batch, and only the adapters by segment."""
        return self._segments(x, self.layer(x), choice)

    def _segments(self, x: Tensor, y: Tensor, choice: Mixed) -> Tensor:
        times = x.shape[0] // sum(choice.sizes)
        sizes = [size * times for size in choice.sizes]
        slots = [self.slots.get(name) for name in choice.names]
        if all(slot is None for slot in slots):
            return y
        segments = zip(slots, torch.split(x, sizes), torch.split(y, sizes), strict=True)
        return torch.cat([b if slot is None else slot(a, b) for slot, a, b in segments])

    def resolve(self, name: str) -> nn.Module:
        """Return a copy of the layer, with this domain's adapter if it has one."""
        layer, slot = copy.deepcopy(self.layer), self.slots.get(name)
        return layer if slot is None else Adapted(layer, copy.deepcopy(slot))
