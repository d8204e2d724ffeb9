"""A bank stands where a layer stood: one slot per domain, chosen by the model's switch.

A pure batch calls its domain's slot and nothing else, so that it costs what the layer cost and its
gradients reach no other slot. A mixed batch, sorted by domain, is cut into segments, each through
its own slot, and joined; banks that know a cheaper way when nothing is learned (one gather, one
multiply-add) override `gather`. `Table` holds the slots' numbers for that.
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

PLAIN = (bool, int, float, str, tuple, type(None))  # what all slots have in common by construction


class Slots(nn.Module):
    """Slots by domain. (An nn.ModuleDict refuses names of its own methods: "items", "type", …)"""

    def __setitem__(self, name: str, slot: nn.Module) -> None:
        self._modules[name] = slot

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training":  # a mode of every module, and the name of some domain
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
        """The slot, or None."""
        return self._modules.get(name)


class Table:
    """The float tensors of a bank's slots as rows of a matrix that the slots' tensors look into.

    The rows *are* the slots' storage, so whatever changes a slot in place changes its row: nothing
    can be stale. What gives a slot other storage (`.to`, `.data = …`, a copied model) is noticed by
    its address, and the table is laid out anew.
    """

    def __init__(self, names: tuple[str, ...], slots: Slots) -> None:
        self.names = names
        self.parts: list[tuple[str, torch.Size]] = []
        self._places: dict[str, list[tuple[dict[str, Any], str, int]]] = {}
        self._asked: tuple[str, ...] = ()
        self._homes: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._addresses: list[int] = []
        with torch.inference_mode(False), torch.no_grad():
            some = next(slots[name] for name in slots)
            self.parts = [(path, tensor.shape) for path, _, _, tensor in _floats(some)]
            width = sum(shape.numel() for _, shape in self.parts)
            like = next(tensor for _, _, _, tensor in _floats(some))
            self.rows = torch.zeros(len(names), width, dtype=like.dtype, device=like.device)
            for row, name in zip(self.rows, names, strict=True):
                if name not in slots:
                    continue
                at, places = 0, []
                for _, home, key, tensor in _floats(slots[name]):
                    view = row[at : at + tensor.numel()].view(tensor.shape)
                    view.copy_(tensor)
                    tensor.data = view
                    places.append((home, key, view.data_ptr()))
                    at += tensor.numel()
                self._places[name] = places

    def holds(self, names: tuple[str, ...]) -> bool:
        """Whether these slots' tensors still look into their rows.

        Asked once a bank and mixed pass, so it runs over flat lists without a line of Python each.
        """
        if names != self._asked:
            places = [place for name in names for place in self._places.get(name, ())]
            self._asked = names
            self._homes = [home for home, _, _ in places]
            self._keys = [key for _, key, _ in places]
            self._addresses = [address for _, _, address in places]
        tensors = map(getitem, self._homes, self._keys)
        return list(map(Tensor.data_ptr, tensors)) == self._addresses

    def take(self, index: Tensor) -> list[Tensor]:
        """Per image its slot's tensors, each (B, *shape)."""
        return cut(self.rows.index_select(0, index), self.parts)


def cut(rows: Tensor, parts: list[tuple[str, torch.Size]]) -> list[Tensor]:
    """Rows (B, width) as their parts, each (B, *shape)."""
    pieces = torch.split(rows, [shape.numel() for _, shape in parts], 1)
    return [piece.reshape(-1, *shape) for piece, (_, shape) in zip(pieces, parts, strict=True)]


def _floats(slot: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, Tensor]]:
    for path, module in slot.named_modules():
        for home in (module._parameters, module._buffers):
            for key, tensor in home.items():
                if tensor is not None and tensor.is_floating_point():
                    yield f"{path}.{key}" if path else key, home, key, tensor


class Bank(nn.Module):
    """What stands where a layer stood. Subclasses say what a slot is and how it is run."""

    inner: ClassVar[str] = "origin"  # the replaced layer's name inside: what is shared of it

    def __init__(self, where: str, switch: Switch) -> None:
        super().__init__()
        self.where = where  # the layer's name in the trunk
        self.switch = switch
        self.slots = Slots()
        self._table: Table | None = None

    # -- what a kind of bank says

    @abstractmethod
    def make_slot(self) -> nn.Module | None:
        """A new slot that does what the replaced layer did; None where a domain needs none."""

    @abstractmethod
    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """A pure batch, or a segment, through one slot."""

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """A mixed batch in one go, each image by `index`; None where this bank cannot."""
        return None

    @abstractmethod
    def resolve(self, name: str) -> nn.Module:
        """A plain module that does what this bank does for one domain; shares nothing with it."""

    def slot(self, slot: nn.Module | None) -> Any:
        """The slot, where a domain must have one."""
        if slot is None:
            raise Failed(
                f"{self.where}: the running domain has no slot here; there are: "
                + ", ".join(self.slots)
            )
        return slot

    # -- running

    def forward(self, x: Tensor) -> Tensor:
        """Through the slot of the running domain, or each image through its own."""
        choice = self.switch.read()
        if isinstance(choice, str):
            return self.run(x, self.slots.get(choice))
        index = choice.index
        if x.shape[0] % index.shape[0]:
            raise Unfit(self.where, "what comes here is not one or several rows for each image")
        if x.shape[0] != index.shape[0]:  # k windows or tokens an image, one after another
            index = index.repeat_interleave(x.shape[0] // index.shape[0])
        if not choice.names or not self.learns():
            y = self.gather(x, index)
            if y is not None:
                return y
        if not choice.names:
            raise Failed(
                f"{self.where}: this bank runs a mixed batch only by segments, which an index "
                "does not tell; try: name the domains, one per image, or export one domain"
            )
        return self.by_segment(x, choice)

    def by_segment(self, x: Tensor, choice: Mixed) -> Tensor:
        """Cut the sorted batch, each segment through its slot, join."""
        times = x.shape[0] // sum(choice.sizes)
        pieces = torch.split(x, [size * times for size in choice.sizes])
        return torch.cat(
            [
                self.run(piece, self.slots.get(name))
                for piece, name in zip(pieces, choice.names, strict=True)
            ]
        )

    def learns(self) -> bool:
        """Whether a gradient may be asked of a slot, or statistics may move, in this pass."""
        return self.training or torch.is_grad_enabled()

    def take(self, index: Tensor) -> list[Tensor]:
        """Per image its slot's float tensors, in the order of the slot's own."""
        names, table = self.switch.names, self._table
        if torch.compiler.is_compiling():
            if table is None or torch.is_grad_enabled():
                return self._stacked(index)
            return table.take(index)
        choice = self.switch.read()
        present = choice.names if isinstance(choice, Mixed) and choice.names else names
        if table is None or table.names != names or not table.holds(present):
            with self.switch.lock:
                table = self._table = Table(names, self.slots)
        return table.take(index)

    def lay_out(self) -> None:
        """Have the table ready, so that a trace finds it."""
        if len(self.slots):
            with self.switch.lock:
                self._table = Table(self.switch.names, self.slots)

    def _stacked(self, index: Tensor) -> list[Tensor]:
        """As `take`, through autograd: gradients reach the slots."""
        some = [list(_floats(self.slots[name])) for name in self.slots]
        empty = [torch.zeros_like(tensor) for _, _, _, tensor in some[0]]
        of = dict(zip(self.slots, ([t for _, _, _, t in row] for row in some), strict=True))
        rows = [of.get(name, empty) for name in self.switch.names]
        return [torch.stack(column).index_select(0, index) for column in zip(*rows, strict=True)]

    # -- slots that come and go

    def attach(self, name: str, slot: nn.Module | None) -> None:
        """This slot for this domain."""
        if slot is not None:
            self.slots[name] = slot
        self._table = None

    def detach(self, name: str) -> None:
        """No slot for this domain any more."""
        if name in self.slots:
            del self.slots[name]
        self._table = None

    # -- what else may happen to a module

    def _apply(self, fn: Any, recurse: bool = True) -> Bank:
        self._table = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a copy has storage of its own

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get(self.inner)
            value = getattr(layer, name, None) if layer is not None else None
            if value is not None and isinstance(value, PLAIN) and not name.startswith("_"):
                return value  # a width or an epsilon: the same in every slot
            raise ReadsLayer(
                str(self.__dict__.get("where")),
                f"a bank stands here, and {name!r} is each domain's own; ask one domain's slot",
            ) from None


class Unfit(Exception):
    """No bank can stand at `where`, for this reason."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


class ReadsLayer(Unfit, AttributeError):
    """Code outside of a layer's forward reads what a bank has once per domain."""


def strip(layer: nn.Module) -> nn.Module:
    """A copy of a norm without affine and without what it does afterwards."""
    bare = copy.deepcopy(layer)
    for key in ("weight", "bias"):
        if key in bare._parameters:
            bare._parameters[key] = None
    for key in ("drop", "act"):
        if key in bare._modules:
            bare._modules[key] = nn.Identity()
    return bare
