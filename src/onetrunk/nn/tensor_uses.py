"""Record which calls make and read each tensor in a forward pass.

A norm can be merged into the layer before it only if nothing else reads the tensor between the two.
A torch-function mode records every function of the pass with its arguments and result, whether a
module or the code of a `forward` calls it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# Functions that may return their argument unchanged: then they do not read it.
SAME = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "contiguous", "to", "float"})
# Functions that read the values of their first tensor, and only the shape of the others.
SHAPED = frozenset({"reshape_as", "view_as", "expand_as", "type_as"})
# Functions that read no values.
OUTSIDE = frozenset(
    {"__get__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "__len__"}
)


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a function: its name, arguments and result."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any


@dataclass
class Uses:
    """All calls of one pass, and for each tensor which of them made it and which read it."""

    calls: list[Call] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()
    _made: dict[int, Call] = field(default_factory=dict)
    _read: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    _kept: list[Any] = field(default_factory=list)  # keeps tensors alive, so that ids stay unique

    def maker(self, tensor: Tensor) -> Call | None:
        """Return the call that made this tensor."""
        return self._made.get(id(tensor))

    def readers(self, tensor: Tensor) -> list[Call]:
        """Return the calls that read this tensor."""
        return self._read.get(id(tensor), [])

    def only_reader(self, tensor: Tensor, call: Call) -> bool:
        """Return whether nothing but this call reads the tensor, and it is no output."""
        return self.readers(tensor) == [call] and id(tensor) not in self.outputs

    def add(self, call: Call) -> None:
        """Record a call."""
        self._kept.append(call)
        given = [leaf for leaf in tree_leaves((call.args, dict(call.kwargs))) if _is_tensor(leaf)]
        made = [leaf for leaf in tree_leaves(call.out) if _is_tensor(leaf)]
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
            if all(tensor is not one for one in given):  # else the call worked in place
                self._made[id(tensor)] = call


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


class _Recorder(TorchFunctionMode):
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
        self.uses.add(Call(getattr(func, "__name__", str(func)), args, kwargs or {}, out))
        return out


def record_uses(module: nn.Module, *inputs: Any) -> Uses:
    """Run the module once, without gradients, and return the calls of the pass."""
    uses = Uses()
    with torch.no_grad(), _Recorder(uses):
        out = module(*inputs)
    leaves = [leaf for leaf in tree_leaves(out) if _is_tensor(leaf)]
    uses._kept.append(leaves)
    uses.outputs = frozenset(id(leaf) for leaf in leaves)
    return uses


class Owners:
    """The module that owns each parameter and buffer."""

    def __init__(self, module: nn.Module) -> None:
        self._of: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        self._of[id(tensor)].append((part, key))

    def only(self, tensor: object, key: str) -> nn.Module | None:
        """Return the only owner of this tensor under this name; None if shared or computed."""
        owners = self._of.get(id(tensor), [])
        return owners[0][0] if len(owners) == 1 and owners[0][1] == key else None


def swap(module: nn.Module, part: nn.Module, new: nn.Module) -> None:
    """Replace a submodule wherever it is used."""
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child is part:
                parent._modules[name] = new
