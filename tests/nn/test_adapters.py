"""Adapters: the rule for each kind of layer, the formulas by hand, sizes before training."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from onetrunk.errors import BadInput
from onetrunk.nn.adapters import ADAPTERS, AdapterBank, find_adapter, make_adapter
from onetrunk.nn.adapters.parallel import MAX_BATCHED, Parallel
from onetrunk.nn.adapters.series import Series
from onetrunk.nn.switch import Mixed, Switch
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.testing.models import make_domain, make_images, make_model
from tests.helpers.errors import raises

Shapes = list[tuple[int, ...]]

RULES: list[
    tuple[nn.Module, Shapes | None, Shapes | None]
] = [  # layer, parallel's shapes, lora's shapes
    (nn.Conv2d(32, 64, 3, 2, 1), [(64, 32, 1, 1)], [(4, 32, 3, 3), (64, 4, 1, 1)]),
    (nn.Conv2d(32, 64, 1), [(4, 32, 1, 1), (64, 4, 1, 1)], [(4, 32, 1, 1), (64, 4, 1, 1)]),
    (nn.Linear(128, 256), [(8, 128), (256, 8)], [(8, 128), (256, 8)]),
    (nn.Conv2d(32, 32, 3, padding=1, groups=32), [(32, 1, 1, 1)], None),
    (nn.Conv2d(32, 64, 5, padding=2, groups=4), [(64, 8, 1, 1)], None),
    (nn.Conv2d(3, 64, 16, 16), None, None),
    (nn.Conv2d(32, 64, 2, 2), None, None),
    (nn.Conv2d(32, 64, 3), None, None),
    (Conv2dSame(8, 16, 3, 2), [(16, 8, 1, 1)], [(4, 8, 3, 3), (16, 4, 1, 1)]),
    (nn.Conv1d(8, 8, 3, padding=1), None, None),
]


def _adapter(kind: str, layer: nn.Module, rank: int | None = None) -> nn.Module:
    adapter = make_adapter(kind, layer, rank)
    assert adapter is not None
    return adapter


@pytest.mark.parametrize(("layer", "parallel", "lora"), RULES)
def test_one_rule_for_each_kind_of_layer(
    layer: nn.Module, parallel: Shapes | None, lora: Shapes | None
) -> None:
    for kind, shapes in (("parallel", parallel), ("lora", lora)):
        adapter = make_adapter(kind, layer)
        got = None if adapter is None else [tuple(p.shape) for p in adapter.parameters()]
        assert got == shapes, kind
    if parallel is None:
        assert find_adapter("parallel").why_not(layer)


@pytest.mark.parametrize("kind", ["parallel", "series", "lora"])
@pytest.mark.parametrize("case", [0, 1, 2, 3, 4, 8])
def test_a_new_adapter_has_no_effect(kind: str, case: int) -> None:
    layer = RULES[case][0]
    adapter = make_adapter(kind, layer)
    if adapter is not None:
        channels = cast(int, layer.in_channels) if case != 2 else 0
        x = torch.randn(2, channels, 9, 9) if channels else torch.randn(2, 128)
        y = layer(x)
        assert torch.equal(adapter.eval()(x, y), y)


def test_formulas_by_hand() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, 2, 1)
    x, a = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 1, 1)
    parallel = _adapter("parallel", layer)
    parallel.get_parameter("branch.weight").data.copy_(a)
    torch.testing.assert_close(parallel(x, layer(x)), layer(x) + F.conv2d(x, a, stride=2))
    series, m = _adapter("series", layer).eval(), torch.randn(6, 6, 1, 1)
    series.get_parameter("branch.weight").data.copy_(m)
    series.get_buffer("norm.running_mean").fill_(0.5)
    series.get_buffer("norm.running_var").fill_(4.0 - 1e-5)
    z = layer(x)
    torch.testing.assert_close(series(x, z), z + F.conv2d((z - 0.5) / 2, m))


@pytest.mark.parametrize("width", [8, MAX_BATCHED + 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batched_and_by_segment_are_equal(
    width: int, stride: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    names = ("a", "b", "plain")
    layer = nn.Conv2d(width, width, 3, stride, 1)
    bank = AdapterBank(layer, "here", Switch(names)).to(memory_format=layout).eval()
    for name in names[:2]:
        slot = _adapter("parallel", layer)
        slot.get_parameter("branch.weight").data.normal_(0, 0.1)
        bank.attach(name, slot)
    x = torch.randn(5, width, 7, 7).to(memory_format=layout)
    choice = Mixed(torch.tensor([0, 0, 1, 2, 2]), names, (2, 1, 2))
    expected = layer(x)
    for rows, name in (((0, 1), "a"), ((2,), "b")):
        for row in rows:
            expected[row] = bank.slots[name](x[row : row + 1], layer(x[row : row + 1]))[0]
    for grad in (False, True):
        with torch.set_grad_enabled(grad), bank.switch.using(choice):
            torch.testing.assert_close(bank(x), expected, rtol=1e-4, atol=1e-4)


def test_a_domain_without_adapters_does_not_change() -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    x = make_images(2, 32)
    with torch.no_grad():
        before = model(x, "ants")["classify"]
        sha = model.trunk.fingerprint()
        model.add_domain(make_domain("dogs", 32), adapters="parallel")
        assert torch.equal(model(x, "ants")["classify"], before)
        assert model.trunk.fingerprint() == sha  # shared tensors are unchanged
        mixed = model(x, ["dogs", "ants"])
    torch.testing.assert_close(mixed[1]["classify"], before[1], rtol=1e-5, atol=1e-6)


def test_domains_with_different_adapters() -> None:
    model = make_model(lambda: Trunk("resnet20", adapters="parallel"), 32)
    model.add_domain(make_domain("dogs", 32), adapters="series")
    model.add_domain(make_domain("eels", 32), adapters="none")
    kinds = {type(bank.slots.get("dogs")) for bank in model.trunk.banks().values()}
    assert Series in kinds
    assert Parallel not in kinds
    x, order = make_images(3, 32), ["eels", "dogs", "ants"]
    with torch.no_grad():
        mixed = model(x, order)
        for i, name in enumerate(order):
            alone = model(x[i : i + 1], name)["classify"][0]
            torch.testing.assert_close(mixed[i]["classify"], alone, rtol=1e-5, atol=1e-5)


def test_published_size_of_parallel_adapters() -> None:
    trunk = Trunk("resnet26", norm="shared", adapters="parallel", adapter_layers=("stage*",))
    count = sum(trunk.bytes_per_domain().values()) // 4
    assert count == 645_216 - 32 * 3  # the paper's, less its stem's 3 → 32


def test_bytes_per_domain() -> None:
    trunk = Trunk("timm/test_efficientnet", adapters="parallel")
    expected = trunk.bytes_per_domain()
    model = Universal(trunk, [make_domain("a", 64)])
    own = model.own("a")
    got = sum(v.numel() * v.element_size() for k, v in own.items() if k.startswith("slots/"))
    assert got == sum(expected.values())


def test_adapter_layers() -> None:
    trunk = Trunk("resnet20", adapters="parallel", adapter_layers=("stage3.*",))
    Universal(trunk, [make_domain("a", 32)])
    paths = [path for path, bank in trunk.banks().items() if isinstance(bank, AdapterBank)]
    assert len(paths) == 6
    assert all(path.startswith("stage3.") for path in paths)
    with raises(BadInput, "parallel", got="stage9.*"):
        Universal(
            Trunk("resnet20", adapters="parallel", adapter_layers=("stage9.*",)),
            [make_domain("a", 32)],
        )


def test_layers_without_adapters_are_listed() -> None:
    model = Universal(Trunk("timm/test_vit", adapters="parallel"), [make_domain("a", 64)])
    assert "even-sized" in model.trunk.skipped["patch_embed.proj"]


def test_layers_whose_weights_are_read_elsewhere_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunk = Trunk("timm/test_vit", adapters="lora")
    attention = trunk.net.get_submodule("blocks.0.attn")
    forward = type(attention).forward

    def reads_weight(x: Tensor, *_: object, **__: object) -> Tensor:
        weight = attention.get_submodule("qkv").weight
        assert isinstance(weight, Tensor)
        return cast(Tensor, forward(attention, x * (weight[0, 0] * 0 + 1)))

    monkeypatch.setattr(attention, "forward", reads_weight)
    Universal(trunk, [make_domain("a", 64)])
    assert "blocks.0.attn.qkv" in trunk.skipped
    assert "blocks.1.attn.qkv" in trunk.banks()


RANKED: list[
    tuple[nn.Module, str, Shapes]
] = [  # layer, kind, shapes at rank 2 (of the adapter's own norm none)
    (nn.Conv2d(32, 64, 3, 2, 1), "parallel", [(2, 32, 1, 1), (64, 2, 1, 1)]),
    (nn.Conv2d(32, 64, 3, 2, 1), "series", [(2, 64, 1, 1), (64, 2, 1, 1)]),
    (nn.Conv2d(32, 64, 3, 2, 1), "lora", [(2, 32, 3, 3), (64, 2, 1, 1)]),
    (nn.Conv2d(32, 64, 1), "parallel", [(2, 32, 1, 1), (64, 2, 1, 1)]),
    (nn.Linear(128, 256), "lora", [(2, 128), (256, 2)]),
    (nn.Conv2d(32, 32, 3, padding=1, groups=32), "parallel", [(32, 1, 1, 1)]),
]


@pytest.mark.parametrize(("layer", "kind", "shapes"), RANKED)
def test_a_rank(layer: nn.Module, kind: str, shapes: Shapes) -> None:
    adapter = _adapter(kind, layer, 2)
    assert [tuple(p.shape) for p in adapter.parameters() if p.ndim > 1] == shapes
    widest = _adapter(kind, layer, 4096)  # never wider than the layer itself
    assert all(max(p.shape) <= 256 for p in widest.parameters())


@pytest.mark.parametrize("kind", ["parallel", "series", "lora"])
def test_domains_with_different_ranks(kind: str) -> None:
    model = make_model(lambda: Trunk("resnet20"), 32)
    for name, rank in (("dogs", 2), ("eels", 3), ("flies", None)):
        model.add_domain(make_domain(name, 32), adapters=kind, rank=rank)
        with torch.no_grad():
            for parameter in model.parameters_of(name).values():
                parameter.add_(0.05 * torch.randn_like(parameter))
    sizes = [model.trunk.bytes_per_domain(kind, rank) for rank in (2, 3)]
    assert sum(sizes[0].values()) < sum(sizes[1].values())
    x, order = make_images(4, 32), ["eels", "dogs", "flies", "ants"]
    model.eval()
    with torch.no_grad():
        mixed = model(x, order)
        for i, name in enumerate(order):
            alone = model(x[i : i + 1], name)["classify"][0]
            torch.testing.assert_close(mixed[i]["classify"], alone, rtol=1e-4, atol=1e-4)
            folded = model.for_domain(name)(x[i : i + 1])["classify"][0]
            torch.testing.assert_close(folded, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "rank"), [("none", 4), ("lora", 0), ("parallel", 5000)])
def test_refused_ranks(kind: str, rank: int) -> None:
    with raises(BadInput, "rank", got=rank):
        make_adapter(kind, nn.Conv2d(8, 8, 3, padding=1), rank)


def test_unknown_adapters() -> None:
    with raises(BadInput, "adapter", got="paralel", available=ADAPTERS):
        Trunk("resnet20", adapters="paralel")
