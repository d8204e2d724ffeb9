"""SegNet: against torch's own pooling and unpooling, odd sizes, and dense heads on its last map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn import networks as nets
from onetrunk.nn.decoder import LastMap
from onetrunk.nn.fold import fold
from onetrunk.nn.heads import Refined
from onetrunk.nn.segnet import pool, unpool
from onetrunk.nn.shared_heads import separate
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal

CLASSES = ("wall", "floor", "item")
TASKS = [
    Task("segment", "segment", CLASSES),
    Task("depth", "depth"),
    Task("normals", "normals"),
    Task("kind", "classify", ("a", "b")),
]


def reference(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps of the forward pass, computed with `max_unpool2d`."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    layers = iter(zip(convs, norms, strict=True))

    def block(y: torch.Tensor, count: int) -> torch.Tensor:
        for _ in range(count):
            conv, norm = next(layers)
            y = norm(F.conv2d(y, conv.weight, padding=1)).relu()
        return y

    maps, indices, sizes = [], [], []
    for count in (2, 2, 3, 3, 3):
        x = block(x, count)
        sizes.append(x.shape[-2:])
        x, index = F.max_pool2d(x, 2, return_indices=True)
        indices.append(index)
        maps.append(x)
    for count in (3, 3, 3, 2, 2):
        height, width = sizes.pop()
        x = block(F.max_unpool2d(x, indices.pop(), (2, 2), output_size=(height, width)), count)
        maps.append(x)
    return maps


def test_by_hand() -> None:
    torch.manual_seed(0)
    net = nets.build("segnet").double().train()
    x = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    expected = reference(net, x)
    found = net.forward_pyramid(x)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(found[-1])
    gradients = torch.autograd.grad((found[-1] * weight).sum(), list(net.parameters()))
    expected_gradients = torch.autograd.grad((expected[-1] * weight).sum(), list(net.parameters()))
    for got, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net(x), expected[4].mean((2, 3)), rtol=1e-9, atol=1e-9)


def test_unpooling_restores_the_places_of_the_maxima() -> None:
    x = torch.tensor([[[[1.0, 5, 2], [4, 3, 2], [7, 6, 9]]]])
    maxima, positions = pool(x)
    assert maxima[0, 0].tolist() == [[5, 2], [7, 9]]  # at the odd edge the maximum of fewer pixels
    assert positions[0, 0].tolist() == [[1, 0], [0, 0]]  # of equals, the first
    back = unpool(maxima * 10, positions, (3, 3))
    assert back[0, 0].tolist() == [[0, 50, 20], [0, 0, 0], [70, 0, 90]]
    wide = torch.randn(2, 5, 12, 10)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = wide.relu().to(memory_format=layout)  # many equals
        maxima, positions = pool(given)
        expected, index = F.max_pool2d(given, 2, return_indices=True)
        assert torch.equal(maxima, expected)
        unpooled = F.max_unpool2d(expected, index, (2, 2))
        assert torch.equal(unpool(maxima, positions, (12, 10)), unpooled)


def test_dense_heads_read_the_last_map() -> None:
    torch.manual_seed(0)
    model = Universal(Trunk("segnet"), [Domain("rooms", None, TASKS, size=(33, 50))]).eval()
    heads = model.heads_of("rooms")
    assert isinstance(heads.decoder, LastMap)
    assert heads.decoder.levels == (9,)
    assert all(isinstance(heads.head(t), Refined) for t in ("segment", "depth", "normals"))
    assert heads.head("kind").in_features == 512
    x = torch.randn(2, 3, 33, 50)
    with torch.no_grad():
        out = model(x, "rooms")
        with model.trunk.switch.using("rooms"):
            _, (last,) = model.trunk(x, False, [9])
        head = heads.head("depth")
        tensor = head.get_parameter
        expected = F.conv2d(last, tensor("conv.weight"), tensor("conv.bias"), padding=1)
        expected = F.conv2d(expected, tensor("last.weight"), tensor("last.bias"))
    assert {name: tuple(y.shape[1:]) for name, y in out.items()} == {
        "segment": (3, 33, 50),
        "depth": (1, 33, 50),
        "normals": (3, 33, 50),
        "kind": (2,),
    }
    torch.testing.assert_close(out["depth"], expected, rtol=1e-5, atol=1e-5)


def test_full_sharing_of_a_dense_head() -> None:
    torch.manual_seed(0)
    domains = [
        Domain("a", None, [Task("segment", "segment", CLASSES)], size=32),
        Domain("b", None, [Task("segment", "segment", CLASSES[::-1])], size=32),
    ]
    model = Universal(Trunk("segnet", sharing="full", norm="shared"), domains).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        one, other = (model(x, name)["segment"] for name in ("a", "b"))
        assert torch.equal(one, other.flip(1))
        alone = separate(model.heads_of("b"))
        with model.trunk.switch.using("b"):
            _, (last,) = model.trunk(x, False, [9])
        torch.testing.assert_close(alone(None, {9: last}, (32, 32))["segment"], other)
        plain = model.for_domain("b")
        torch.testing.assert_close(plain(x)["segment"], other, rtol=1e-3, atol=1e-3)


def test_all_norms_fold() -> None:
    torch.manual_seed(0)
    model = Universal(Trunk("segnet"), [Domain("rooms", None, TASKS, size=32)]).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 32, 32), "rooms")
    plain = model.eval().for_domain("rooms", fold=False)
    folded, report = fold(plain, [(32, 32)])
    assert (report.norms, len(report.left)) == (26, 0)
    x = torch.randn(2, 3, 45, 31)
    with torch.no_grad():
        for got, want in zip(folded(x).values(), plain(x).values(), strict=True):
            assert (got - want).abs().max() <= 1e-3 * want.abs().max()
