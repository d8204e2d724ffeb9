"""Banks: modules that replace one layer by one slot per domain.

The model's switch chooses the slot. A batch of one domain runs through that domain's slot alone, so
it costs as much as the layer, and other slots get no gradients. A mixed batch, sorted by
domain, is cut into segments; each runs through its own slot, and the results are concatenated. A
bank with a faster way without gradients (one gather, one multiply-add) overrides `gather`, which
reads the tensors of the slots from a `Table`.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from operator import getitem
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from onetrunk.errors import Failed
from onetrunk.nn.switch import Mixed, Switch

# Types of attributes that all slots have in common: a width, an epsilon, a stride.
PLAIN = (bool, int, float, str, tuple, type(None))


class Slots(nn.Module):
    """The slots of a bank by domain.

    Not an `nn.ModuleDict`, where names of methods ("items", "type", …) cannot be keys.
    """

    def __setitem__(self, name: str, slot: nn.Module) -> None:
        self._modules[name] = slot

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training":  # also a valid name of a domain
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def __getitem__(self, name: str) -> nn.Module:
        slot = self._modules.get(name)
        if slot is None:
            raise KeyError(name)
        return slot

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def get(self, name: str) -> nn.Module | None:
        """Return the slot of this domain, or None."""
        return self._modules.get(name)


class Table:
    """The floating-point tensors of a bank's slots as the rows of one matrix.

    The tensors of the slots are views of the rows, so a change of a slot in place changes its row.
    An operation that gives a slot new storage (`.to`, `.data = …`, a copy of the model) is detected
    by the addresses of the tensors, and the bank then builds a new table.
    """

    def __init__(self, names: tuple[str, ...], slots: Slots) -> None:
        self.names = names
        self.parts: list[tuple[str, torch.Size]] = []
        self._views: dict[str, list[tuple[dict[str, Any], str, int]]] = {}
        self._checked: tuple[str, ...] = ()
        self._owners: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._addresses: list[int] = []
        with torch.inference_mode(False), torch.no_grad():
            first = next(slots[name] for name in slots)
            self.parts = [(path, tensor.shape) for path, _, _, tensor in _float_tensors(first)]
            width = sum(shape.numel() for _, shape in self.parts)
            like = next(tensor for _, _, _, tensor in _float_tensors(first))
            self.rows = torch.zeros(len(names), width, dtype=like.dtype, device=like.device)
            for row, name in zip(self.rows, names, strict=True):
                if name not in slots:
                    continue
                start, views = 0, []
                for _, owner, key, tensor in _float_tensors(slots[name]):
                    view = row[start : start + tensor.numel()].view(tensor.shape)
                    view.copy_(tensor)
                    tensor.data = view
                    views.append((owner, key, view.data_ptr()))
                    start += tensor.numel()
                self._views[name] = views

    def is_current(self, names: tuple[str, ...]) -> bool:
        """Return whether the tensors of these slots are still views of their rows.

        It uses flat lists for speed, as it runs for every bank in every mixed pass.
        """
        if names != self._checked:
            views = [view for name in names for view in self._views.get(name, ())]
            self._checked = names
            self._owners = [owner for owner, _, _ in views]
            self._keys = [key for _, key, _ in views]
            self._addresses = [address for _, _, address in views]
        tensors = map(getitem, self._owners, self._keys)
        return list(map(Tensor.data_ptr, tensors)) == self._addresses

    def take(self, index: Tensor) -> list[Tensor]:
        """Return for each image the tensors of its slot, each (B, *shape)."""
        rows = self.rows.index_select(0, index)
        pieces = torch.split(rows, [shape.numel() for _, shape in self.parts], 1)
        shaped = zip(pieces, self.parts, strict=True)
        return [piece.reshape(-1, *shape) for piece, (_, shape) in shaped]


def _float_tensors(slot: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, Tensor]]:
    """Yield the path, owning dictionary, key and value of each floating-point tensor."""
    for path, module in slot.named_modules():
        for owner in (module._parameters, module._buffers):
            for key, tensor in owner.items():
                if tensor is not None and tensor.is_floating_point():
                    yield f"{path}.{key}" if path else key, owner, key, tensor


class Replacement(nn.Module):
    """A module that replaces one of the trunk's layers and contains that layer."""

    inner: ClassVar[str] = "origin"  # the attribute with the replaced layer
    why_not_folded: ClassVar[str] = ""  # why folding cannot merge this module


class Bank(Replacement):
    """One slot per domain in place of one layer.

    Subclasses define what a slot is and how it runs.

    Args:
        path: The name of the replaced layer in the trunk.
        switch: The model's switch, which chooses the slot.
    """

    # Whether the replaced layer is only the template of new slots, which is never trained.
    is_template: ClassVar[bool] = False
    # Whether a slot in training normalizes with the statistics of the batch.
    normalizes_batches: ClassVar[bool] = False

    def __init__(self, path: str, switch: Switch) -> None:
        super().__init__()
        self.path = path
        self.switch = switch
        self.slots = Slots()
        self._table: Table | None = None

    # -- methods of subclasses

    @abstractmethod
    def make_slot(self) -> nn.Module | None:
        """Return a new slot with the outputs of the replaced layer; None if none is needed."""

    @abstractmethod
    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Run a batch, or a segment of one, through one slot."""

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """Run a mixed batch in one pass, with the slots of `index`; None if not possible."""
        return None

    @abstractmethod
    def resolve(self, name: str) -> nn.Module:
        """Return a plain module that computes what this bank does for one domain, as a copy."""

    def required(self, slot: nn.Module | None) -> Any:
        """Return the slot; raise Failed if the domain has none."""
        if slot is None:
            raise Failed(f"{self.path}: the current domain has no slot", available=self.slots)
        return slot

    # -- running

    def forward(self, x: Tensor) -> Tensor:
        """Run a batch of one domain through its slot, or each segment of a mixed one."""
        choice = self.switch.read()
        if isinstance(choice, str):
            return self.run(x, self.slot_of(choice))
        index = choice.index
        if x.shape[0] % index.shape[0]:
            raise Unfit(self.path, "its input does not have the same number of rows for each image")
        if x.shape[0] != index.shape[0]:  # several windows or tokens of one image, consecutively
            index = index.repeat_interleave(x.shape[0] // index.shape[0])
        if not choice.names or not self.may_learn():
            y = self.gather(x, index)
            if y is not None:
                return y
        if not choice.names:
            raise Failed(
                f"{self.path}: this bank runs mixed batches by segments, which need the names of "
                "the domains",
                try_="a list of names, one per image; or export one domain",
            )
        return self.by_segment(x, choice)

    def slot_of(self, name: str) -> nn.Module | None:
        """Return the slot of this domain, or None.

        It is called by every layer in every pass, and an attribute that is a module takes twenty
        times as long to find as the entry of a dictionary.
        """
        return self._modules["slots"]._modules.get(name)  # type: ignore[union-attr]

    def by_segment(self, x: Tensor, choice: Mixed) -> Tensor:
        """Run each segment of a sorted batch through its own slot."""
        times = x.shape[0] // sum(choice.sizes)
        pieces = torch.split(x, [size * times for size in choice.sizes])
        segments = zip(pieces, choice.names, strict=True)
        return torch.cat([self.run(piece, self.slot_of(name)) for piece, name in segments])

    def may_learn(self) -> bool:
        """Return whether this pass may need gradients of a slot or update its statistics."""
        return self.training or torch.is_grad_enabled()

    def take(self, index: Tensor) -> list[Tensor]:
        """Return for each image the floating-point tensors of its slot, in the slot's order."""
        names, table = self.switch.names, self._table
        if torch.compiler.is_compiling():
            if table is None or torch.is_grad_enabled():
                return self._stacked(index)
            return table.take(index)
        choice = self.switch.read()
        present = choice.names if isinstance(choice, Mixed) and choice.names else names
        if table is None or table.names != names or not table.is_current(present):
            with self.switch.lock:
                table = self._table = Table(names, self.slots)
        return table.take(index)

    def build_table(self) -> None:
        """Build the table, so that it exists before a trace."""
        if len(self.slots):
            with self.switch.lock:
                self._table = Table(self.switch.names, self.slots)

    def _stacked(self, index: Tensor) -> list[Tensor]:
        """Do the same as `take` with autograd, so that the slots get gradients."""
        tensors = {
            name: [tensor for _, _, _, tensor in _float_tensors(self.slots[name])]
            for name in self.slots
        }
        empty = [torch.zeros_like(tensor) for tensor in next(iter(tensors.values()))]
        rows = [tensors.get(name, empty) for name in self.switch.names]
        return [torch.stack(column).index_select(0, index) for column in zip(*rows, strict=True)]

    # -- adding and removing slots

    def attach(self, name: str, slot: nn.Module | None) -> None:
        """Add the slot of a domain."""
        if slot is not None:
            self.slots[name] = slot
        self.clear_cache()

    def detach(self, name: str) -> None:
        """Remove the slot of a domain, if it has one."""
        if name in self.slots:
            del self.slots[name]
        self.clear_cache()

    def clear_cache(self) -> None:
        """Drop cached values that depend on the slots."""
        self._table = None

    # -- overridden methods of nn.Module

    def _apply(self, fn: Any, recurse: bool = True) -> Bank:
        self._table = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a copy has other storage

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get(self.inner)
            value = getattr(layer, name, None) if layer is not None else None
            if value is not None and isinstance(value, PLAIN) and not name.startswith("_"):
                return value
            raise ReadsLayer(
                str(self.__dict__.get("path")),
                f"{name!r} differs by domain in this bank; read it from the slot of one domain",
            ) from None


class CopyBank(Bank):
    """A bank whose slots are copies of the replaced layer."""

    is_template = True
    origin: Any

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.origin = layer.requires_grad_(False)

    def make_slot(self) -> nn.Module:
        """Return a copy of the replaced layer."""
        slot: nn.Module = copy.deepcopy(self.origin)
        return slot.requires_grad_(True).train(self.training)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Run the domain's layer."""
        y: Tensor = self.required(slot)(x)
        return y

    def resolve(self, name: str) -> nn.Module:
        """Return a copy of the domain's layer."""
        return copy.deepcopy(self.slots[name])


class StageBank(CopyBank):
    """A stage of the trunk that each domain owns (sharing = "partial")."""


class Unfit(Exception):
    """The layer at `path` cannot be replaced by a bank."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class ReadsLayer(Unfit, AttributeError):
    """Code outside of the layer reads an attribute that differs by domain."""


def modules_without_slots(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield every module with its path, except those inside of slots.

    A module that is used in two places is yielded twice. The cost is independent of the domains.
    """
    yield path, module
    for key, child in module._modules.items():
        if child is not None and not isinstance(child, Slots):
            yield from modules_without_slots(child, f"{path}.{key}" if path else key)


def shared_tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors outside of slots by their names in the network without banks."""
    tensors: dict[str, Tensor] = {}
    module._save_to_state_dict(tensors, prefix, True)
    for key, child in module._modules.items():
        if child is None or isinstance(child, Slots):
            continue
        replaced = isinstance(module, Replacement) and key == module.inner
        tensors |= shared_tensors(child, prefix if replaced else f"{prefix}{key}.")
    return tensors
