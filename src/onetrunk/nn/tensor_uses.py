"""Who reads which tensor: one forward pass, watched.

To merge a norm into the layer before it one must know that nobody else looks between the two. A
torch-function mode sees every function of the pass with its arguments and result, whatever class
called it, so this holds for functions written inside a forward as well as for modules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# These give the very tensor back when they have nothing to do: no reader, where they do.
SAME = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "contiguous", "to", "float"})
# Of these only the first tensor's values are read, of the others the shape.
SHAPED = frozenset({"reshape_as", "view_as", "expand_as", "type_as"})
# These read a tensor's outside only.
OUTSIDE = frozenset(
    {"__get__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "__len__"}
)


@dataclass(frozen=True, eq=False)
class Call:
    """One function that ran: its name, what it was given, what it gave."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any


@dataclass
class Uses:
    """All calls of one pass, and for each tensor who made it and who read it."""

    calls: list[Call] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()
    _made: dict[int, Call] = field(default_factory=dict)
    _read: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    _held: list[Any] = field(default_factory=list)  # so that no id is given away twice

    def maker(self, tensor: Tensor) -> Call | None:
        """The call that gave this tensor."""
        return self._made.get(id(tensor))

    def readers(self, tensor: Tensor) -> list[Call]:
        """The calls that were given this tensor."""
        return self._read.get(id(tensor), [])

    def only_reader(self, tensor: Tensor, call: Call) -> bool:
        """Whether nobody but this call ever sees the tensor, the model's caller included."""
        return self.readers(tensor) == [call] and id(tensor) not in self.outputs

    def _note(self, call: Call) -> None:
        self._held.append(call)
        given = [leaf for leaf in tree_leaves((call.args, dict(call.kwargs))) if _is(leaf)]
        made = [leaf for leaf in tree_leaves(call.out) if _is(leaf)]
        if not made and call.name in OUTSIDE:
            return
        if call.name in SHAPED:
            given = given[:1]
        if call.name in SAME and len(made) == 1 and given and made[0] is given[0]:
            return
        self.calls.append(call)
        for tensor in given:
            self._read[id(tensor)].append(call)
        for tensor in made:
            if all(tensor is not one for one in given):  # in place: made by whoever made it first
                self._made[id(tensor)] = call


def _is(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


class _Watch(TorchFunctionMode):
    def __init__(self, uses: Uses) -> None:
        super().__init__()
        self.uses = uses

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.uses._note(Call(getattr(func, "__name__", str(func)), args, kwargs or {}, out))
        return out


def watch(module: nn.Module, *inputs: Any) -> Uses:
    """Run the module once, without gradients, and say who read what."""
    uses = Uses()
    with torch.no_grad(), _Watch(uses):
        out = module(*inputs)
    leaves = [leaf for leaf in tree_leaves(out) if _is(leaf)]
    uses._held.append(leaves)
    uses.outputs = frozenset(id(leaf) for leaf in leaves)
    return uses


class Owners:
    """Which module holds a parameter or buffer, and under which name."""

    def __init__(self, module: nn.Module) -> None:
        self._of: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
        for part in module.modules():
            for home in (part._parameters, part._buffers):
                for key, tensor in home.items():
                    if tensor is not None:
                        self._of[id(tensor)].append((part, key))

    def only(self, tensor: object, key: str) -> nn.Module | None:
        """The one module that holds this tensor under this name; None if shared or computed."""
        found = self._of.get(id(tensor), [])
        return found[0][0] if len(found) == 1 and found[0][1] == key else None


def places(module: nn.Module, part: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every (parent, name) under which a part stands in a module."""
    for parent in module.modules():
        for name, child in parent._modules.items():
            if child is part:
                yield parent, name


def swap(module: nn.Module, part: nn.Module, new: nn.Module) -> None:
    """Put another part wherever this one stands."""
    for parent, name in list(places(module, part)):
        parent._modules[name] = new
