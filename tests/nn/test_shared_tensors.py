"""Shared tensors have the names of the plain network, at a cost independent of the domains."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import onetrunk as ot
from onetrunk.nn.bank import Replacement, Slots, modules_without_slots
from onetrunk.nn.pack import Pack

TASKS = [ot.Task("classify", "classify", ("stop", "go"))]
TRUNKS: dict[str, dict[str, object]] = {
    "domain norms": {"arch": "resnet26", "adapters": "parallel"},
    "instance norms": {"arch": "resnet20", "norm": "instance"},
    "statistics alone": {"arch": "resnet20", "norm": "domain-stats", "adapters": "lora"},
    "own stem": {"arch": "resnet20", "sharing": "partial", "own_stages": ["stem"]},
    "a transformer": {"arch": "timm/test_vit", "adapters": "series"},
    "a mobile network": {"arch": "timm/test_efficientnet"},
}


def domain(name: str, size: int = 32) -> ot.Domain:
    return ot.Domain(name, None, TASKS, size=size)


def make_model(count: int, **keys: Any) -> ot.Universal:
    trunk = ot.Trunk(keys.pop("arch", "resnet20"), **keys)
    return ot.Universal(trunk, [domain(f"d{i}") for i in range(count)]).eval()


def by_renaming(trunk: ot.Trunk) -> dict[str, Tensor]:
    """Return the shared tensors by renaming each tensor of the state dict by itself."""
    banks = {p: m for p, m in trunk.net.named_modules() if isinstance(m, Replacement)}
    named = {}
    for key, tensor in trunk.net.state_dict(keep_vars=True).items():
        name: str | None = key
        for path, bank in banks.items():
            if key.startswith(f"{path}.slots."):
                name = None
            elif key.startswith(f"{path}.{bank.inner}."):
                name = key.replace(f"{path}.{bank.inner}.", f"{path}.", 1)
        if name is not None:
            named[name] = tensor
    return named


@pytest.mark.parametrize("keys", TRUNKS.values(), ids=TRUNKS)
def test_shared_tensors_have_the_names_and_order_of_the_plain_network(
    keys: dict[str, object],
) -> None:
    trunk = make_model(2, **keys).trunk
    expected, got = by_renaming(trunk), trunk.shared()
    assert list(got) == list(expected)
    assert all(got[name] is tensor for name, tensor in expected.items())


@pytest.mark.parametrize("keys", TRUNKS.values(), ids=TRUNKS)
def test_all_modules_but_those_in_slots(keys: dict[str, object]) -> None:
    net = make_model(2, **keys).trunk.net
    every = dict(net.named_modules(remove_duplicate=False))
    expected = [path for path in every if "slots" not in path.split(".")]
    assert [path for path, _ in modules_without_slots(net)] == expected
    assert any(isinstance(module, Slots) for module in every.values()) or "instance" in str(keys)


def calls(run: Callable[[], object]) -> int:
    """Return how many Python functions a call runs."""
    count = 0

    def seen(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("adapters", ["none", "parallel"])
def test_the_cost_of_a_domain_does_not_depend_on_their_number(adapters: str) -> None:
    few, many = make_model(2, adapters=adapters), make_model(20, adapters=adapters)
    packs = [model.pack("d1") for model in (few, many)]
    added = []
    for model, pack in zip((few, many), packs, strict=True):
        model.remove("d1")
        added.append(calls(partial(model.add_pack, pack)))
    assert added[1] < 1.02 * added[0]
    mixed = []
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        for model in (few, many):
            model(x, ["d0", "d1"] * 2)
            mixed.append(calls(partial(model, x, ["d0", "d1"] * 2)))
    assert mixed[1] < 1.02 * mixed[0]


def test_slots_are_tried_once_per_adapters_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int]] = []
    measure = ot.Trunk.measure

    def counted(self: ot.Trunk, name: str, size: tuple[int, int]) -> object:
        tried.append(size)
        return measure(self, name, size)

    model = make_model(3)
    model.add_domain(domain("large", 48))
    model.add_domain(domain("bent"), adapters="parallel")
    model.add_domain(domain("low"), adapters="parallel", rank=4)
    ot.save(model, tmp_path)
    monkeypatch.setattr(ot.Trunk, "measure", counted)
    back = ot.load(tmp_path)
    assert tried == [(32, 32), (48, 48), (32, 32), (32, 32)]
    back.add_domain(domain("more", 48), adapters="parallel")
    assert tried[4:] == [(48, 48)]
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(back(x, "large")["classify"], model.eval()(x, "large")["classify"])


def test_packs_are_loaded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[weakref.ref[Pack]] = []
    alive: list[int] = []
    first = Pack.open

    def seen(path: Path) -> Pack:
        alive.append(sum(pack() is not None for pack in opened))
        pack = first(path)
        opened.append(weakref.ref(pack))
        return pack

    ot.save(make_model(4), tmp_path)
    monkeypatch.setattr(Pack, "open", seen)
    assert list(ot.load(tmp_path).domains) == ["d0", "d1", "d2", "d3"]
    assert alive == [0, 0, 0, 0]


def test_a_domain_replaced_by_one_of_another_rank() -> None:
    model, x = make_model(3, adapters="parallel"), torch.randn(3, 3, 32, 32)
    names = ["d0", "d1", "d2"]
    with torch.no_grad():
        model(x, names)
        model.remove("d1")
        model.add_domain(domain("d1"), adapters="parallel", rank=2)
        for parameter in model.parameters_of("d1").values():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for i, (name, found) in enumerate(zip(names, model.eval()(x, names), strict=True)):
            alone = model(x[i : i + 1], name)["classify"][0]
            torch.testing.assert_close(found["classify"], alone, atol=1e-4, rtol=1e-4)
