"""Banks: tables whose rows are the storage of the slots, through every change of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import NAMES, difference, make_images, make_model
from tests.helpers.small import domain, network

ORDER = ["cats", "ants", "bees", "ants"]


def _check(model: Universal) -> None:
    x = make_images(4, 32)
    with torch.no_grad():
        mixed = model(x, ORDER)
        for i, name in enumerate(ORDER):
            assert difference(mixed[i]["classify"], model(x[i : i + 1], name)["classify"][0]) < 1e-5


def _scale(model: Universal) -> None:
    for parameter in model.parameters_of("ants").values():
        parameter.data = parameter.data * 1.5  # other storage


def _step(model: Universal) -> None:
    torch.autograd.backward(model(make_images(4, 32), "ants")["classify"].sum())
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def _stats(model: Universal) -> None:
    model.train()
    with torch.no_grad():
        model(make_images(4, 32), "bees")
    model.eval()


def _readd(model: Universal) -> None:
    pack = model.pack("ants")
    model.remove("ants")
    model.add_pack(pack)


def _changed(model: Universal) -> dict[str, Tensor]:
    state = model.state_dict()
    return {k: v + 0.01 if v.is_floating_point() else v for k, v in state.items()}


CHANGES: dict[str, Callable[[Universal], object]] = {
    "in place": lambda m: [p.data.mul_(1.5) for p in m.parameters_of("cats").values()],
    "other storage": _scale,
    "a step": _step,
    "stats": _stats,
    "a state dict": lambda m: m.load_state_dict(_changed(m)),
    "assigned": lambda m: m.load_state_dict(_changed(m), assign=True),
    "to and fro": lambda m: m.double().float(),
    "removed and added": _readd,
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("adapters", ["none", "parallel"])
def test_tables_follow_every_change(change: str, adapters: str) -> None:
    model = make_model(lambda: Trunk("resnet20", adapters=adapters), 32)
    _check(model)
    CHANGES[change](model)
    _check(model)
    _check(copy.deepcopy(model))


def test_a_table_built_in_inference_mode_can_be_trained() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    with torch.inference_mode():
        model(make_images(4, 32), ORDER)
    torch.autograd.backward(model(make_images(4, 32), "ants")["classify"].sum())
    torch.autograd.backward(model(make_images(4, 32), ORDER)[0]["classify"].sum())
    assert all(p.grad is not None for p in model.parameters_of("cats").values())


def test_tables_are_not_saved_beside_the_slots() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    with torch.no_grad():
        model(make_images(4, 32), ORDER)
    data = save_tensors({k: v.clone() for k, v in model.state_dict().items()})
    plain = sum(v.numel() * v.element_size() for v in model.state_dict().values())
    assert len(data) < plain + 200_000


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_any_number_of_domains(count: int) -> None:
    names = tuple(f"d{i}" for i in range(count))
    model = make_model(lambda: Trunk("timm/test_vit"), 32, names)
    order = [names[(7 * i) % count] for i in range(12)]
    x = make_images(12, 32)
    with torch.no_grad():
        mixed = model(x, order)
        for i, name in enumerate(order):
            assert difference(mixed[i]["classify"], model(x[i : i + 1], name)["classify"][0]) < 1e-5


@pytest.mark.parametrize("adapters", ["none", "parallel"])
def test_a_pure_batch_runs_the_domain_s_own_layers(adapters: str) -> None:
    model = network([domain("a"), domain("b", seed=1)], adapters=adapters).eval()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in model.domains:
        with torch.no_grad():
            one, alone = model(x, name), model.for_domain(name, fold=False)(x)
        assert all(torch.equal(one[task], alone[task]) for task in one)
        for bank in model.trunk.banks().values():
            slot = bank.slot_of(name)
            assert slot is bank.slots.get(name)
            assert bank.slot_of("c") is None


def test_a_domain_adds_only_its_slots() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    own = sum(p.numel() for p in model.parameters_of("ants").values())
    shared = sum(p.numel() for p in model.shared_parameters().values())
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert total == shared + len(NAMES) * own
