"""Adapters: small learned layers that bend a frozen layer f to one domain.

(Rebuffi et al. 2017, 2018)

| name | formula |
|---|---|
| `parallel` | y = f(x) + A∗x |
| `series` | z = f(x), y = z + A∗BN(z) |
| `lora` | y = f(x) + B∗(A∗x), A of f's own shape to r channels (Hu et al. 2022) |

and the norm that follows, the domain's own, is the outer BN of the papers. A, or B, starts at zero:
nothing changes before something is learned. What A is depends on f alone:

| f | parallel, series | lora |
|---|---|---|
| dense convolution, odd k > 1 | dense 1×1 | low-rank pair, k×k then 1×1 |
| pointwise convolution, linear | low-rank pair | low-rank pair |
| grouped or depthwise, odd k | 1×1 of the same groups | none |
| even k, or padding that is not (k−1)/2 | none | none |

A `rank` r makes every pair one of r channels, and of a dense 1×1 such a pair (the parallel low-rank
form of Rebuffi et al. 2018); a grouped 1×1 stays. Without it r = max(4, min(in, out)/16).

An adapter of the user's own, "package.module:thing", is called as `thing(layer)` and returns None
or a module called as `adapter(x, y)` with the layer's input and output.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn.bank import Bank
from onetrunk.nn.fused_adapter import ride, rides
from onetrunk.nn.norms import load
from onetrunk.nn.strided_conv import is_pointwise, pointwise
from onetrunk.nn.switch import Switch

ADAPTERS = ("none", "series", "parallel", "lora")
MOST = 4096  # the largest rank
BATCHED = 128  # up to this many channels, one batched product beats one product a segment

MakeAdapter = Callable[[nn.Module], nn.Module | None]


class Parallel(nn.Module):
    """y = f(x) + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` went into the layer, `y` came out."""
        return y + self.branch(x)  # type: ignore[no-any-return]


class Series(nn.Module):
    """z = f(x), y = z + branch(norm(z))."""

    def __init__(self, norm: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.branch = branch

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`y` came out of the layer."""
        return y + self.branch(self.norm(y))  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """A layer with one adapter: what an adapter bank is to one domain."""

    def __init__(self, layer: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """The layer, bent."""
        return self.adapter(x, self.layer(x))  # type: ignore[no-any-return]


class AdapterBank(Bank):
    """A shared layer with each domain's adapter; a domain without one passes through untouched."""

    inner = "layer"
    layer: Any

    def __init__(self, layer: nn.Module, where: str, switch: Switch) -> None:
        super().__init__(where, switch)
        self.layer = layer
        self._found: tuple[tuple[str, ...], int | None] | None = None  # with these domains

    def make_slot(self) -> None:
        """A domain asks for its adapter by name; see `make_adapter`."""

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """The layer, then the adapter, if there is one."""
        if type(slot) is Parallel and rides(x, self.layer, slot.branch):
            return ride(x, self.layer, slot.branch)  # type: ignore[arg-type]
        y: Tensor = self.layer(x)
        return y if slot is None else slot(x, y)

    def gather(self, x: Tensor, index: Tensor) -> Tensor | None:
        """f once over the whole batch, then parallel branches as batched products.

        A dense 1×1 that is wide goes by segment instead, where the segments are known: a batched
        product would copy C² numbers for every image.
        """
        segments = self.switch.read()
        known = not isinstance(segments, str) and bool(segments.names)
        some: Any = next((self.slots[name] for name in self.slots), None)
        if some is None:
            return self.layer(x)  # type: ignore[no-any-return]
        stride = self._stride()
        if stride is not None:
            wide = self.layer.weight.shape[0] > BATCHED or self.layer.weight.shape[1] > BATCHED
            pair = isinstance(some.branch, nn.Sequential)
            if not known or (not wide and not pair):
                return batched(x, self.layer(x), self.take(index), stride)
        return self._segments(x, self.layer(x)) if known else None

    def _stride(self) -> int | None:
        """Of slots that are matrices of one shape; found once, until a domain comes or goes."""
        if torch.compiler.is_compiling():  # which would compile again whenever one is found
            return _one_by_one([self.slots[name] for name in self.slots])
        found, names = self._found, self.switch.names
        if found is None or found[0] != names:
            found = self._found = names, _one_by_one([self.slots[name] for name in self.slots])
        return found[1]

    def attach(self, name: str, slot: nn.Module | None) -> None:
        """As of any bank."""
        super().attach(name, slot)
        self._found = None

    def detach(self, name: str) -> None:
        """As of any bank."""
        super().detach(name)
        self._found = None

    def by_segment(self, x: Tensor, choice: object) -> Tensor:
        """The layer over the whole batch, only the adapters by segment."""
        return self._segments(x, self.layer(x))

    def _segments(self, x: Tensor, y: Tensor) -> Tensor:
        choice = self.switch.read()
        assert not isinstance(choice, str)
        times = x.shape[0] // sum(choice.sizes)
        sizes = [size * times for size in choice.sizes]
        slots = [self.slots.get(name) for name in choice.names]
        if all(slot is None for slot in slots):
            return y
        pairs = zip(slots, torch.split(x, sizes), torch.split(y, sizes), strict=True)
        return torch.cat([b if slot is None else slot(a, b) for slot, a, b in pairs])

    def resolve(self, name: str) -> nn.Module:
        """The layer, with this domain's adapter if it has one."""
        layer, slot = copy.deepcopy(self.layer), self.slots.get(name)
        return layer if slot is None else Adapted(layer, copy.deepcopy(slot))


def _one_by_one(slots: list[Any]) -> int | None:
    """The stride of parallel branches that are matrices of one shape, else None; 0: linear."""
    strides: set[tuple[tuple[torch.Size, ...], int]] = set()
    for slot in slots:
        if type(slot) is not Parallel:
            return None
        parts = list(slot.branch) if type(slot.branch) is nn.Sequential else [slot.branch]
        for part in parts:
            if is_pointwise(part) and part.groups == 1:
                continue
            if type(part) is not nn.Linear:
                return None
        first: Any = parts[0]
        shapes = tuple(part.get_parameter("weight").shape for part in parts)
        strides.add((shapes, 0 if isinstance(first, nn.Linear) else int(first.stride[0])))
    return strides.pop()[1] if len(strides) == 1 else None


def batched(x: Tensor, y: Tensor, weights: list[Tensor], stride: int) -> Tensor:
    """y + A∗x with a matrix A (or a pair, down then up) for each image, as batched products."""
    first, *rest = [weight.flatten(2) if weight.ndim > 3 else weight for weight in weights]
    if stride == 0:  # linear: (B, …, C)
        x_BPC, y_BPC = (
            x.reshape(x.shape[0], -1, x.shape[-1]),
            y.reshape(y.shape[0], -1, y.shape[-1]),
        )
        return _product(x_BPC, y_BPC, first, rest).view(y.shape)
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    B, _, H, W = x.shape
    if y.is_contiguous() and not rest:
        return torch.baddbmm(y.flatten(2), first, x.flatten(2)).view(B, -1, H, W)
    x_BPC, y_BPC = x.permute(0, 2, 3, 1).flatten(1, 2), y.permute(0, 2, 3, 1).flatten(1, 2)
    return _product(x_BPC, y_BPC, first, rest).view(B, H, W, -1).permute(0, 3, 1, 2)


def _product(x_BPC: Tensor, y_BPC: Tensor, first: Tensor, rest: list[Tensor]) -> Tensor:
    last = first
    if rest:
        x_BPC, last = torch.bmm(x_BPC, first.transpose(1, 2)), rest[0]
    return torch.baddbmm(y_BPC, x_BPC, last.transpose(1, 2))


def check_rank(kind: str, rank: int | None) -> None:
    """Refuse a rank that no adapter of this kind can have."""
    if rank is None:
        return
    if kind == "none" or ":" in kind:
        raise BadInput("a rank is that of series, parallel or lora adapters", got=f"{kind}, {rank}")
    if not 1 <= rank <= MOST:
        raise BadInput(f"a rank is a whole number from 1 to {MOST}", got=rank)


def make_adapter(kind: str, layer: nn.Module, rank: int | None = None) -> nn.Module | None:
    """A fresh adapter, without effect, for this layer; None where the rule gives it none."""
    made: nn.Module | None
    check_rank(kind, rank)
    if ":" in kind:
        made = load(kind, "adapter", ADAPTERS)(layer)
        if made is not None and not isinstance(made, nn.Module):
            raise BadInput(f"adapter {kind!r}: expected None or a module", got=type(made).__name__)
    elif kind not in ADAPTERS:
        raise BadInput(
            "unknown adapters", got=kind, available=ADAPTERS, try_="or package.module:thing"
        )
    elif kind == "none" or why_not(layer):
        return None
    elif isinstance(layer, nn.Conv2d):
        made = _for_conv(kind, layer, rank)
    else:
        assert isinstance(layer, nn.Linear)
        made = _for_linear(kind, layer, rank)
    like = next(layer.parameters(), None)
    return made if made is None or like is None else made.to(like)


def _for_linear(kind: str, layer: nn.Linear, asked: int | None) -> nn.Module:
    inside = layer.out_features if kind == "series" else layer.in_features
    rank = _rank(layer.in_features, layer.out_features, asked)
    pair = _pair(nn.Linear(inside, rank, bias=False), layer.out_features)
    return Series(nn.LayerNorm(inside), pair) if kind == "series" else Parallel(pair)


def _for_conv(kind: str, layer: nn.Conv2d, asked: int | None) -> nn.Module | None:
    dense, point = layer.groups == 1, max(layer.kernel_size) == 1
    series, out = kind == "series", layer.out_channels
    inside = out if series else layer.in_channels
    stride: Any = (1, 1) if series else layer.stride
    rank = _rank(layer.in_channels, out, asked)
    branch: nn.Module
    if kind == "lora" and (not dense or layer.state_dict().keys() - {"weight", "bias"}):
        return None  # a layer with more to it than a kernel has no low-rank twin
    if kind == "lora" and not point:  # down has the layer's own window
        down = copy.deepcopy(layer)
        down.out_channels, down.bias = rank, None
        down.weight = nn.Parameter(down.weight.detach().new_empty(rank, *down.weight.shape[1:]))
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)
        branch = _pair(down, out)
    elif dense and (point or asked is not None):
        branch = _pair(pointwise(inside, rank, stride), out)
    else:
        branch = pointwise(inside, out, stride, layer.groups)
        nn.init.zeros_(branch.weight)
    return Series(nn.BatchNorm2d(out), branch) if series else Parallel(branch)


def why_not(layer: nn.Module) -> str:
    """Why this layer takes no adapter; empty where it takes one."""
    if isinstance(layer, nn.Linear):
        return ""
    if not isinstance(layer, nn.Conv2d):
        return f"a {type(layer).__name__} is neither a 2-D convolution nor linear"
    if any(k % 2 == 0 for k in layer.kernel_size):
        return "its kernel is even-sized: no pixel is its centre"
    if isinstance(layer.padding, str) or type(layer).__name__.endswith("Same"):
        return ""
    half = tuple(d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    if layer.padding != half:
        return "its padding is not half its kernel: its map is not aligned with a 1×1's"
    return ""


def _rank(inside: int, out: int, asked: int | None) -> int:
    return max(4, min(inside, out) // 16) if asked is None else min(asked, inside, out)


def _pair(down: nn.Conv2d | nn.Linear, out: int) -> nn.Sequential:
    """A low-rank map, without effect at first: up starts at zero."""
    up: nn.Conv2d | nn.Linear
    if isinstance(down, nn.Linear):
        up = nn.Linear(down.out_features, out, bias=False)
    else:
        up = nn.Conv2d(down.out_channels, out, 1, bias=False)
    nn.init.zeros_(up.weight)
    return nn.Sequential(down, up)
