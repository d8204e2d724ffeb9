"""Compiled and exported models: one graph for any number of domains, with the index as input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import difference, make_images, make_model

MANY = tuple(f"d{i}" for i in range(12))


class Indexed(nn.Module):
    """The model as a function of images and an index."""

    def __init__(self, model: Universal) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {name: out["classify"] for name, out in self.model(x, index).items()}


def _expected(model: Universal, x: Tensor, names: list[str]) -> Tensor:
    with torch.no_grad():
        return torch.stack([a["classify"] for a in model(x, names)])


def _rows(out: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.stack([out[name][i] for i, name in enumerate(names)])


@pytest.mark.parametrize(
    ("arch", "size", "keys"),
    [
        ("resnet20", 32, {}),
        ("resnet20", 32, {"adapters": "parallel"}),
        ("timm/test_vit", 64, {}),
        ("timm/test_vit", 64, {"adapters": "lora"}),
        ("timm/test_efficientnet", 64, {"norm": "domain-stats"}),
    ],
)
def test_one_graph_for_twelve_domains(arch: str, size: int, keys: dict[str, Any]) -> None:
    model = make_model(lambda: Trunk(arch, **keys), size, MANY)
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(Indexed(model), backend=counter, fullgraph=True)
    x = make_images(12, size)
    for shift in range(3):
        names = [MANY[(i + shift) % 12] for i in range(12)]
        with torch.no_grad():
            got = _rows(compiled(x, model.index(names)), names)
        assert difference(got, _expected(model, x, names)) < 1e-5
    assert counter.frame_count == 1
    with torch.no_grad():  # the switch is not left in the traced state
        assert model(x, "d0")["classify"].shape == (12, 3)


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_domain_input(strict: bool) -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    x, names = make_images(4, 32), ["ants", "bees", "cats", "ants"]
    index = model.index(names)
    batch = torch.export.Dim("batch", min=2)
    with torch.no_grad():
        program = torch.export.export(
            Indexed(model), (x, index), dynamic_shapes=({0: batch}, {0: batch}), strict=strict
        ).module()
        for given in (names, ["cats", "cats", "ants", "bees"], ["bees", "ants"]):
            n = len(given)
            got = _rows(program(x[:n], model.index(given)), given)
            assert difference(got, _expected(model, x[:n], given)) < 1e-5
    assert model.trunk.switch._traced is None
    with torch.no_grad():
        model(x, "bees")


def test_gradients_of_a_compiled_model_reach_the_slots() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    x, names = make_images(3, 32), ["ants", "cats", "ants"]
    torch._dynamo.reset()
    compiled = torch.compile(Indexed(model), backend="aot_eager", fullgraph=True)
    torch.autograd.backward(_rows(compiled(x, model.index(names)), names).square().sum())
    got = {k: p.grad.clone() for k, p in model.parameters_of("cats").items() if p.grad is not None}
    model.zero_grad()
    expected = torch.stack([a["classify"] for a in model(x, names)])
    torch.autograd.backward(expected.square().sum())
    for key, parameter in model.parameters_of("cats").items():
        assert parameter.grad is not None
        assert difference(got[key], parameter.grad) < 1e-3, key
    assert not any(p.grad.any() for p in model.parameters_of("bees").values() if p.grad is not None)
