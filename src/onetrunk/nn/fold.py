"""Folding: a plain module with every adapter and norm that can go into its neighbour gone there.

First each adapter is merged into the layer that it bends (fold_adapters.py), then each batch norm
with running statistics into the convolution or linear layer that it follows directly (fold_norms.py).
All is computed in float64 (merge.py) and checked there against the module as it was. What cannot
fold stays a plain layer, and the report names it with the reason: norms that take statistics from the
image itself (LayerNorm, instance norms), norms that follow something else (pre-activation
networks), adapters whose tap depends on the size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from onetrunk.errors import Failed
from onetrunk.nn import merge_kernels as merge
from onetrunk.nn.adapters import Adapted
from onetrunk.nn.fold_adapters import merged
from onetrunk.nn.fold_norms import Pairs, remainder, stays
from onetrunk.nn.tensor_uses import swap

# Largest relative difference allowed: in float64 a right fold differs by 1e-12, a wrong by 1e-2.
ALGEBRA = {torch.float64: 1e-7, torch.float32: 1e-2}


@dataclass(frozen=True)
class Left:
    """A layer that stayed: its name, its class, and why."""

    name: str
    kind: str
    why: str


@dataclass(frozen=True)
class FoldReport:
    """What folding did: how many norms and adapters went away, and what stayed."""

    norms: int
    adapters: int
    left: tuple[Left, ...]
    parameters: int
    error: float  # largest relative difference of the outputs, as computed in float64

    def __str__(self) -> str:
        lines = [
            f"folded {self.norms} norms and {self.adapters} adapters; "
            f"{self.parameters:,} parameters; differs by {self.error:.0e}"
        ]
        lines += [f"stays: {left.name} ({left.kind}): {left.why}" for left in self.left]
        return "\n".join(lines)


@dataclass
class _Plan:
    """What to do, by name, so that it can be done to any copy of the module."""

    adapters: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    weights: dict[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def apply(self, module: nn.Module) -> None:
        for name in self.adapters:
            adapted = module.get_submodule(name)
            swap(module, adapted, adapted.get_submodule("layer"))
        for name, (weight, bias) in self.weights.items():
            _set(module.get_submodule(name), weight, bias)
        for name in self.norms:
            norm = module.get_submodule(name)
            swap(module, norm, remainder(norm) or nn.Identity())


def fold(
    module: nn.Module, sizes: Sequence[tuple[int, int]], channels: int = 3
) -> tuple[nn.Module, FoldReport]:
    """A folded copy in eval mode, right for images of these sizes (H, W); the module itself stays.

    An adapter under SAME padding at stride 2 is merged for one size; all else holds for any.
    """
    first = next(iter(module.parameters()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, channels, *s, generator=generator).to(first) for s in sizes]
    work, inputs, want = _in_float64(copy.deepcopy(module).eval(), inputs)
    plan = _Plan()
    why = _merge_adapters(work, inputs, plan)
    why |= _fold_norms(work, inputs, plan)

    plain = copy.deepcopy(module).eval()  # of its own: a pass may leave things of its type behind
    plan.apply(plain)
    with torch.no_grad():
        error = max(_difference(work(x), y) for x, y in zip(inputs, want, strict=True))
    if not error <= ALGEBRA.get(inputs[0].dtype, 1e-1):
        raise Failed(
            f"the folded module answers otherwise, by {error:.1e}; "
            "try: use the model itself, which needs no folding, and report its trunk"
        )
    left = tuple(_left(plain, why))
    parameters = sum(p.numel() for p in plain.parameters())
    return plain, FoldReport(len(plan.norms), len(plan.adapters), left, parameters, error)


def _left(plain: nn.Module, why: dict[str, str]) -> Iterator[Left]:
    """The layers that stayed, without what is inside of them."""
    inside = "."  # of no layer's name
    for name, part in plain.named_modules():
        reason = why.get(name) or stays(part)
        if reason and not name.startswith(inside):
            kind = part.adapter if isinstance(part, Adapted) else part
            yield Left(name, type(kind).__name__, reason)
            inside = f"{name}."


def _merge_adapters(work: nn.Module, inputs: Sequence[Tensor], plan: _Plan) -> dict[str, str]:
    """Merge what can be, note it in the plan; why not, by name, for the others."""
    found = {name: part for name, part in work.named_modules() if isinstance(part, Adapted)}
    why: dict[str, str] = {}
    with _input_sizes(found.values()) as seen, torch.no_grad():
        for x in inputs if found else ():
            work(x)
    for name, adapted in found.items():
        new = merged(adapted, seen.get(adapted, ()))
        if isinstance(new, str):
            why[name] = new
            continue
        swap(work, adapted, adapted.layer)
        _set(adapted.layer, *new)
        plan.adapters.append(name)
        plan.weights[name] = new
    return why


def _fold_norms(work: nn.Module, inputs: Sequence[Tensor], plan: _Plan) -> dict[str, str]:
    """Fold what every pass allows, note it in the plan; why not, by name, for the others."""
    passes = [Pairs(work, x) for x in inputs]
    name_of = {part: name for name, part in work.named_modules()}
    for norm, layer in passes[0].layer.items():
        if not all(one.layer.get(norm) is layer for one in passes):
            continue
        weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
        new = merge.fold_norm(weight, bias, merge.affine_of_norm(norm))
        _set(layer, *new)
        plan.weights[name_of[layer]] = new
        plan.norms.append(name_of[norm])
    for name in plan.norms:
        norm = work.get_submodule(name)
        swap(work, norm, remainder(norm) or nn.Identity())
    return {name_of[norm]: reason for one in passes for norm, reason in one.why.items()}


def _in_float64(work: nn.Module, inputs: list[Tensor]) -> tuple[nn.Module, list[Tensor], list[Any]]:
    """The module, its inputs and its answers in float64; as they are, where a layer refuses it."""
    with torch.no_grad():
        try:
            double = copy.deepcopy(work).double()
            wide = [x.double() for x in inputs]
            return double, wide, [double(x) for x in wide]
        except (RuntimeError, TypeError):  # types mixed inside; no float64 on this device
            return work, inputs, [work(x) for x in inputs]


@contextmanager
def _input_sizes(parts: Any) -> Iterator[dict[nn.Module, set[tuple[int, ...]]]]:
    """The sizes (h, w) of what reaches these modules while inside."""
    seen: dict[nn.Module, set[tuple[int, ...]]] = {}

    def note(part: nn.Module, given: tuple[Any, ...]) -> None:
        seen.setdefault(part, set()).add(tuple(given[0].shape[2:]))

    handles = [part.register_forward_pre_hook(note) for part in parts]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """New weights, in the layer's own type and place."""
    for key, new in (("weight", weight), ("bias", bias)):
        if new is not None:
            like = layer.get_parameter("weight")
            parameter = nn.Parameter(new.detach().to(like), requires_grad=False)
            layer.register_parameter(key, parameter)


def _difference(got: Any, want: Any) -> float:
    """The largest difference, in each output's own scale."""
    worst = 0.0
    for a, b in zip(tree_leaves(got), tree_leaves(want), strict=True):
        scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
        worst = max(worst, ((a - b).abs().max() / scale).item())
    return worst
