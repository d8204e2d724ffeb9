"""Folding: merge adapters and norms into their neighbours in a plain network.

First each adapter is merged into the layer that it adapts, then each batch norm with running
statistics into the convolution or linear layer directly before it (fold_norms.py). Everything is
computed in float64 (merge_kernels.py), and the outputs are compared with those of the original
network. The report lists the layers that cannot be merged, with the reason: norms with statistics
of each image (LayerNorm, instance norms), norms that follow another layer (pre-activation
networks), adapters whose tap depends on the size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from onetrunk.errors import Failed
from onetrunk.nn import merge_kernels as merge
from onetrunk.nn.adapters import Adapted, Adapter, Weights
from onetrunk.nn.fold_norms import Pairs, remainder, why_not_folded
from onetrunk.nn.tensor_uses import swap

# The largest relative difference that is allowed. In float64 a correct fold differs by 1e-12, an
# incorrect one by 1e-2.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-2}
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Unfolded:
    """A layer that was not merged: its name, its class, and the reason."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class FoldReport:
    """The result of folding: how many norms and adapters were merged, and which layers were not."""

    norms: int
    adapters: int
    left: tuple[Unfolded, ...]
    parameters: int
    error: float  # largest relative difference of the outputs, as computed in float64

    def __str__(self) -> str:
        lines = [
            f"folded {self.norms} norms and {self.adapters} adapters; "
            f"{self.parameters:,} parameters; differs by {self.error:.0e}"
        ]
        lines += [f"not merged: {left.name} ({left.kind}): {left.reason}" for left in self.left]
        return "\n".join(lines)


@dataclass
class _Plan:
    """The changes, by names of layers, so that they can be applied to any copy of the module."""

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


def fold(module: M, sizes: Sequence[tuple[int, int]], channels: int = 3) -> tuple[M, FoldReport]:
    """Return a folded copy in evaluation mode, for images of these sizes (H, W).

    An adapter under SAME padding at stride 2 is merged for one size; everything else holds for any.
    """
    first = next(iter(module.parameters()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, channels, *s, generator=generator).to(first) for s in sizes]
    work, inputs, expected = _in_float64(copy.deepcopy(module).eval(), inputs)
    plan = _Plan()
    reasons = _merge_adapters(work, inputs, plan)
    reasons |= _fold_norms(work, inputs, plan)

    folded = copy.deepcopy(module).eval()  # not `work`: it is in float64
    plan.apply(folded)
    folded.eval()  # with the modules that replace norms
    with torch.no_grad():
        error = max(_difference(work(x), y) for x, y in zip(inputs, expected, strict=True))
    if not error <= TOLERANCE.get(inputs[0].dtype, 1e-1):
        raise Failed(
            f"the outputs of the folded network differ by {error:.1e}",
            try_="for_domain(NAME, fold=False), and report this trunk",
        )
    left = tuple(_unfolded(folded, reasons))
    parameters = sum(p.numel() for p in folded.parameters())
    return folded, FoldReport(len(plan.norms), len(plan.adapters), left, parameters, error)


def _unfolded(folded: nn.Module, reasons: dict[str, str]) -> Iterator[Unfolded]:
    """Yield the layers that were not merged, but not the layers inside of these."""
    inside = "."  # matches no name
    for name, part in folded.named_modules():
        reason = reasons.get(name) or why_not_folded(part)
        if reason and not name.startswith(inside):
            layer = part.adapter if isinstance(part, Adapted) else part
            yield Unfolded(name, type(layer).__name__, reason)
            inside = f"{name}."


def _merge_adapters(work: nn.Module, inputs: Sequence[Tensor], plan: _Plan) -> dict[str, str]:
    """Merge adapters and add them to the plan; return why others cannot be merged, by name."""
    adapted = {name: part for name, part in work.named_modules() if isinstance(part, Adapted)}
    reasons: dict[str, str] = {}
    with _input_sizes(adapted.values()) as sizes, torch.no_grad():
        for x in inputs if adapted else ():
            work(x)
    for name, part in adapted.items():
        weights = _merged(part, sizes.get(part, ()))
        if isinstance(weights, str):
            reasons[name] = weights
            continue
        swap(work, part, part.layer)
        _set(part.layer, *weights)
        plan.adapters.append(name)
        plan.weights[name] = weights
    return reasons


def _merged(adapted: Adapted, sizes: Iterable[Sequence[int]]) -> Weights | str:
    """Return the layer's weight and bias with the adapter merged, or why it cannot be merged."""
    layer, adapter = adapted.layer, adapted.adapter
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return f"it adapts a {type(layer).__name__}"
    if "Std" in type(layer).__name__ or hasattr(layer, "parametrizations"):
        return "it adapts a layer that computes its kernel (standardized weights)"
    if not isinstance(adapter, Adapter):
        return "this kind of adapter cannot be merged"
    return adapter.merged(layer, sizes)


def _fold_norms(work: nn.Module, inputs: Sequence[Tensor], plan: _Plan) -> dict[str, str]:
    """Merge norms if every pass allows it; return why others cannot be merged, by name."""
    passes = [Pairs(work, x) for x in inputs]
    name_of = {part: name for name, part in work.named_modules()}
    for norm, layer in passes[0].layer.items():
        if not all(each.layer.get(norm) is layer for each in passes):
            continue
        weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
        new = merge.fold_norm(weight, bias, merge.affine_of_norm(norm))
        _set(layer, *new)
        plan.weights[name_of[layer]] = new
        plan.norms.append(name_of[norm])
    for name in plan.norms:
        norm = work.get_submodule(name)
        swap(work, norm, remainder(norm) or nn.Identity())
    return {name_of[norm]: reason for each in passes for norm, reason in each.reason.items()}


def _in_float64(work: nn.Module, inputs: list[Tensor]) -> tuple[nn.Module, list[Tensor], list[Any]]:
    """Return the module, its inputs and outputs in float64; in their own type if a layer fails."""
    with torch.no_grad():
        try:
            double = copy.deepcopy(work).double()
            wide = [x.double() for x in inputs]
            return double, wide, [double(x) for x in wide]
        except (RuntimeError, TypeError):  # types mixed inside; no float64 on this device
            return work, inputs, [work(x) for x in inputs]


@contextmanager
def _input_sizes(parts: Iterable[nn.Module]) -> Iterator[dict[nn.Module, set[tuple[int, ...]]]]:
    """Record the sizes (h, w) of these modules' inputs while the block runs."""
    sizes: dict[nn.Module, set[tuple[int, ...]]] = {}

    def record(part: nn.Module, args: tuple[Any, ...]) -> None:
        sizes.setdefault(part, set()).add(tuple(args[0].shape[2:]))

    handles = [part.register_forward_pre_hook(record) for part in parts]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Replace the weights of a layer, in its type and on its device."""
    for key, new in (("weight", weight), ("bias", bias)):
        if new is not None:
            like = layer.get_parameter("weight")
            parameter = nn.Parameter(new.detach().to(like), requires_grad=False)
            layer.register_parameter(key, parameter)


def _difference(got: Any, expected: Any) -> float:
    """Return the largest difference, relative to the scale of each output."""
    worst = 0.0
    for a, b in zip(tree_leaves(got), tree_leaves(expected), strict=True):
        scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
        worst = max(worst, ((a - b).abs().max() / scale).item())
    return worst
