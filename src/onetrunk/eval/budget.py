"""The budget: the costs of a universal network and of the separate networks that it replaces.

Costs are parameters, bytes of the tensors on disk (the trunk once, a pack for each domain) and
floating-point operations per image, two per multiply-add as torch's counter counts them. A separate
network is the bare trunk with the domain's heads. A domain's operations in the universal network
are those of `model(images, domain=NAME)`; folded, it needs no more than the separate network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from onetrunk.display import Described, Summary, plural, scaled
from onetrunk.eval.table import as_text
from onetrunk.nn.adapters import Adapted
from onetrunk.nn.tensor_uses import swap
from onetrunk.nn.universal import Universal


@dataclass(frozen=True)
class Cost:
    """Parameters, bytes on disk and, for a complete network, operations per image."""

    parameters: int = 0
    bytes: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters, self.bytes + other.bytes, self.flops + other.flops
        )


@dataclass(frozen=True)
class DomainCost:
    """The cost of one domain in the universal network, and of a network for it alone."""

    name: str
    size: tuple[int, int]
    own: Cost
    alone: Cost


@dataclass(frozen=True, repr=False)
class Budget(Described):
    """The cost of the shared part, and of each domain."""

    arch: str
    shared: Cost
    domains: tuple[DomainCost, ...]

    @property
    def universal(self) -> Cost:
        """All domains in one network; operations are the sum over one image of each."""
        return sum((domain.own for domain in self.domains), self.shared)

    @property
    def separate(self) -> Cost:
        """One network for each domain."""
        return sum((domain.alone for domain in self.domains), Cost())

    def to_json(self) -> dict[str, Any]:
        """Return all costs as plain data, with the ratios universal ÷ separate."""
        one, many = self.universal, self.separate
        ratios = {
            f"{key}_ratio": getattr(one, key) / max(getattr(many, key), 1) for key in asdict(one)
        }
        return {**asdict(self), "universal": asdict(one), "separate": asdict(many), **ratios}

    def table(self) -> Table:
        """Return the budget as a table for the terminal."""
        table = Table(
            title=f"{self.arch}: one network of {len(self.domains)} domains, and one network each"
        )
        table.add_column("", no_wrap=True)
        for column in ("size", "parameters", "bytes", "FLOPs", "alone:", "bytes", "FLOPs"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_row("shared", "", *_cells(self.shared, flops=False), "", "", "")
        for domain in self.domains:
            size = "×".join(map(str, domain.size))
            table.add_row(domain.name, size, *_cells(domain.own), *_cells(domain.alone))
        table.add_section()
        table.add_row(
            "all", "", *_cells(self.universal, flops=False), *_cells(self.separate, flops=False)
        )
        return table

    def summary(self) -> Summary:
        """Return the size of the network beside that of separate networks, and of each domain."""
        one, many = self.universal, self.separate
        count = plural(len(self.domains), "domain")
        title = f"Budget({self.arch}, {count}, {scaled(one.bytes, 'B')})"
        alone = f"{scaled(many.bytes, 'B')}, {scaled(many.parameters)} parameters"
        rows = [(d.name, "×".join(map(str, d.size)), *_cells(d.own)) for d in self.domains]
        rows.insert(0, ("shared", "", *_cells(self.shared, flops=False)))
        return Summary(
            title,
            [("separate networks", alone)],
            ("", "size", "parameters", "bytes", "FLOPs"),
            rows,
        )

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table())


def budget(model: Universal) -> Budget:
    """Return the budget of a network."""
    common = {id(tensor) for tensor in model.together.state_dict(keep_vars=True).values()}
    plain = list(model.trunk.shared().values())
    one_network = model.trunk.sharing == "none"
    shared = Cost(
        _parameters(model.shared_parameters().values()),
        0 if one_network else _bytes([*plain, *model.together.state_dict().values()]),
    )
    domains = []
    for name, card in model.domains.items():
        own = [tensor for tensor in model.own(name).values() if id(tensor) not in common]
        heads = list(model.heads_of(name).state_dict(keep_vars=True).values())
        with_adapters, without = _flops(model, name, card.pixels.size)
        domains.append(
            DomainCost(
                name,
                card.pixels.size,
                Cost(_parameters(own), _bytes(own), with_adapters),
                Cost(_parameters([*plain, *heads]), _bytes([*plain, *heads]), without),
            )
        )
    return Budget(model.trunk.arch, shared, tuple(domains))


def trunk_cost(model: Universal) -> Cost:
    """Return the cost of a plain trunk, with one set of norms and without heads."""
    tensors = list(model.trunk.shared().values())
    return Cost(_parameters(tensors), _bytes(tensors))


def _flops(model: Universal, name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the operations for one image of a domain: with its adapters, and without them."""
    plain: nn.Module = model.for_domain(name, fold=False)
    like = next(plain.parameters())
    image = torch.zeros(1, 3, *size, dtype=like.dtype, device=like.device)
    counts = []
    for _ in range(2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            plain(image)
        counts.append(counter.get_total_flops())
        for adapted in [module for module in plain.modules() if isinstance(module, Adapted)]:
            swap(plain, adapted, adapted.layer)
    return counts[0], counts[1]


def _parameters(tensors: Iterable[Tensor]) -> int:
    """Return the number of parameters among these tensors, each tensor counted once."""
    return sum({id(t): t.numel() for t in tensors if isinstance(t, nn.Parameter)}.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({id(t): t.numel() * t.element_size() for t in tensors}.values())


def _cells(cost: Cost, flops: bool = True) -> tuple[str, str, str]:
    return scaled(cost.parameters), scaled(cost.bytes, "B"), scaled(cost.flops) if flops else ""
