"""Budgets: counted by hand, and as a table."""

import json
from typing import Any, Literal

import pytest
import torch
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.eval.budget import Cost, budget
from onetrunk.nn.networks import build
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal


def domain(name: str, classes: int, size: int = 32) -> Domain:
    labels = tuple(f"c{i}" for i in range(classes))
    return Domain(name, None, [Task("classify", "classify", labels)], size=size)


def model(**keys: Any) -> Universal:
    torch.manual_seed(0)
    domains = [domain("a", 10), domain("b", 3, 24)]
    return Universal(Trunk("resnet20", **keys), domains)


def by_hand(size: int, classes: int) -> int:
    """Return two operations per multiply-add of resnet20's convolutions and linear head."""
    total, channels, side = 2 * 9 * 3 * 16 * size**2, 16, size
    for out in (16, 32, 64):
        for unit in range(3):
            if unit == 0 and out != 16:
                side //= 2
            total += 2 * 9 * (channels + out) * out * side**2
            channels = out
    return total + 2 * 64 * classes


NORMS = sum(
    p.numel()
    for m in build("resnet20").modules()
    if isinstance(m, nn.BatchNorm2d)
    for p in m.parameters()
)
PLAIN = sum(p.numel() for p in build("resnet20").parameters())


def test_costs_equal_those_counted_by_hand() -> None:
    found = budget(model())
    a, b = found.domains
    assert found.shared.parameters == PLAIN - NORMS
    assert a.own.parameters == NORMS + 65 * 10
    assert b.own.parameters == NORMS + 65 * 3
    assert a.alone.parameters == PLAIN + 65 * 10
    assert (a.own.flops, a.alone.flops) == (by_hand(32, 10), by_hand(32, 10))
    assert b.own.flops == by_hand(24, 3)
    assert (a.size, b.size) == ((32, 32), (24, 24))
    # floats of 4 bytes; a norm also keeps two statistics a channel and a counter of 8 bytes
    assert a.own.bytes == 4 * (2 * NORMS + 650) + 8 * 19
    assert found.separate == a.alone + b.alone
    assert found.universal.parameters == PLAIN - NORMS + a.own.parameters + b.own.parameters


def test_the_cost_of_adapters() -> None:
    adapted = model(adapters="parallel")
    a = budget(adapted).domains[0]
    adapters = sum(value.numel() for key, value in adapted.own("a").items() if "branch" in key)
    assert a.own.parameters == NORMS + 650 + adapters
    assert a.alone.flops == by_hand(32, 10) < a.own.flops


@pytest.mark.parametrize("sharing", ["full", "none"])
def test_no_parameter_is_counted_twice(sharing: Literal["full", "none"]) -> None:
    torch.manual_seed(0)
    domains = [domain("a", 4)] if sharing == "none" else [domain("a", 4), domain("b", 4)]
    universal = Universal(Trunk("resnet20", sharing=sharing), domains)
    found = budget(universal)
    every = {id(p): p.numel() for p in universal.parameters()}
    templates = NORMS  # from which the slots of a new domain are copied
    assert found.universal.parameters == sum(every.values()) - templates


def test_a_budget_as_data_and_as_a_table() -> None:
    found = budget(model())
    data = found.to_json()
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data))
    assert data["bytes_ratio"] == found.universal.bytes / found.separate.bytes < 0.6
    text = str(found)
    for word in ("shared", "a", "b", "32×32", "24×24", "268 k", f"{by_hand(32, 10) / 1e6:.3g} M"):
        assert word in text
    assert "…" not in text
    assert Cost(1, 2, 3) + Cost(1, 1, 1) == Cost(2, 3, 4)
