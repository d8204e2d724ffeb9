"""The Jacobian of a step's units, against a backward pass of each unit alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onetrunk.errors import Diverged
from onetrunk.train import jacobian as module
from onetrunk.train.jacobian import Jacobian, gram, shared_gradient
from onetrunk.train.weighting import Setup, Weighting, make_weighting
from tests.helpers.errors import raises

UNITS = ("ants/classify", "bees/depth", "bees/classify")


class Net(nn.Module):
    """Two shared convolutions, of which unit 0 uses the first alone, and a head for each unit."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.idle = nn.Conv2d(4, 4, 1)
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in UNITS)

    def loss(self, unit: int, x: Tensor) -> Tensor:
        y = torch.tanh(self.one(x))
        if unit:
            y = torch.tanh(self.two(y))
        output: Tensor = self.heads[unit](y.mean((2, 3)))
        return output.square().mean() * (unit + 1)

    def shared(self) -> list[Tensor]:
        return [p for part in (self.one, self.two, self.idle) for p in part.parameters()]

    def own(self) -> dict[int, list[Tensor]]:
        return {unit: list(head.parameters()) for unit, head in enumerate(self.heads)}


@pytest.fixture(params=["contiguous", "channels_last"])
def net(request: pytest.FixtureRequest) -> Net:
    torch.manual_seed(0)
    net = Net()
    if request.param == "channels_last":
        net.to(memory_format=torch.channels_last)
    return net


def images(seed: int) -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def row(net: Net, losses: list[Tensor]) -> Tensor:
    """The gradient of the mean loss on the shared parameters, by a separate backward pass."""
    net.zero_grad()
    torch.autograd.backward(torch.stack(losses).mean())
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.shared()]
    return torch.cat([part.contiguous().flatten() for part in parts])


class Rows(Weighting):
    """Returns given weights, and records its arguments."""

    needs_gram = True

    def __init__(self, *weights: float) -> None:
        super().__init__(Setup(UNITS), {})
        self.given = torch.tensor(weights)
        self.gram: Tensor | None = None
        self.losses: Tensor | None = None
        self.present: Sequence[int] = []

    def weights_from_gram(
        self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]
    ) -> Tensor:
        self.gram, self.losses, self.present = gram_KK, losses_K, present
        return self.given


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each backward pass: whether its graph was kept."""
    kept: list[bool] = []
    grad = torch.autograd.grad

    def counted(*args: Any, **given: Any) -> Any:
        kept.append(bool(given.get("retain_graph")))
        return grad(*args, **given)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    return kept


def test_rows_are_the_gradients_of_each_unit_alone(net: Net) -> None:
    twin = copy.deepcopy(net)
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([(unit, net.loss(unit, images(unit))) for unit in (2, 0, 1)])
    expected = torch.stack([row(twin, [twin.loss(unit, images(unit))]) for unit in range(3)])
    assert jacobian.present == [0, 1, 2]
    assert jacobian.matrix().dtype == torch.float32
    assert torch.allclose(jacobian.matrix(), expected, atol=1e-7)
    losses = torch.stack([twin.loss(unit, images(unit)) for unit in range(3)])
    assert torch.allclose(jacobian.losses(), losses)


def test_a_unit_with_several_batches_has_their_mean(net: Net) -> None:
    twin = copy.deepcopy(net)
    both = [twin.loss(1, images(0)), twin.loss(1, images(1))]
    expected = torch.stack([row(twin, [twin.loss(0, images(0))]), row(twin, both)])
    at_once = Jacobian(net.shared(), UNITS)
    at_once.add([(unit, net.loss(unit, images(i))) for unit, i in ((1, 0), (0, 0), (1, 1))])
    one_by_one = Jacobian(net.shared(), UNITS)
    for unit, i in ((1, 0), (0, 0), (1, 1)):
        one_by_one.add([(unit, net.loss(unit, images(i)))])
    for jacobian in (at_once, one_by_one):
        assert torch.allclose(jacobian.matrix(), expected, atol=1e-7)
        assert torch.allclose(jacobian.losses()[1], torch.stack(both).mean())


def test_each_unit_has_one_backward_pass_and_the_last_frees_the_graph(
    net: Net, passes: list[bool]
) -> None:
    x = net.one(images(0))  # one graph below all of them, as the tasks of one batch have
    losses = [(unit, (unit + 1) * x.square().mean()) for unit in (0, 1, 2)]
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([*losses, (1, net.loss(1, images(1)))])
    jacobian.apply(make_weighting("gradnorm", UNITS))
    assert passes == [True, True, False]


def test_own_parameters_get_the_gradient_of_their_unit(net: Net) -> None:
    twin = copy.deepcopy(net)
    jacobian = Jacobian(net.shared(), UNITS)
    for batch in range(2):
        losses = [(unit, net.loss(unit, images(batch))) for unit in (0, 1)]
        jacobian.add(losses, net.own(), share={1: 0.25})
    for unit, share in ((0, 1.0), (1, 0.25)):
        twin.zero_grad()
        both = twin.loss(unit, images(0)) + twin.loss(unit, images(1))
        torch.autograd.backward(share * both)
        for got, expected in zip(net.own()[unit], twin.own()[unit], strict=True):
            assert got.grad is not None and expected.grad is not None
            assert torch.allclose(got.grad, expected.grad, atol=1e-7)
    assert all(p.grad is None for p in (*net.own()[2], *net.shared()))


def test_equal_weights_are_the_plain_backward_pass(net: Net) -> None:
    twin = copy.deepcopy(net)
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([(unit, net.loss(unit, images(unit))) for unit in range(3)])
    weighting = Rows(1.0, 1.0, 1.0)
    jacobian.apply(weighting)
    torch.autograd.backward(
        torch.stack([twin.loss(unit, images(unit)) for unit in range(3)]).mean()
    )
    for got, expected in zip(net.shared(), twin.shared(), strict=True):
        assert (got.grad is None) == (expected.grad is None)
        if got.grad is not None and expected.grad is not None:
            assert torch.allclose(got.grad, expected.grad, atol=1e-7)
            assert got.grad.stride() == got.stride()
    assert net.idle.weight.grad is None  # so no optimizer decays it
    assert weighting.present == [0, 1, 2]


def test_the_gradient_is_added_to_existing_gradients(net: Net) -> None:
    """Those of distillation, for example."""
    for parameter in net.shared():
        parameter.grad = torch.ones_like(parameter)
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([(unit, net.loss(unit, images(unit))) for unit in (0, 2)])
    jacobian.apply(Rows(2.0, -1.0))
    rows = jacobian.matrix()
    grads = [p.grad for p in net.shared()[:4]]
    assert all(grad is not None for grad in grads)
    flat = torch.cat([grad.contiguous().flatten() for grad in grads if grad is not None])
    expected = 1 + (2 * rows[0] - rows[1]) / 2
    assert torch.allclose(flat, expected[: len(flat)], atol=1e-6)


def test_frozen_parameters_and_losses_without_labels(net: Net) -> None:
    net.one.requires_grad_(False)
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([(1, net.loss(1, images(0))), (2, torch.tensor(0.0))], net.own())
    J = jacobian.matrix()
    assert J.shape == (2, sum(p.numel() for p in (*net.two.parameters(), *net.idle.parameters())))
    assert J[0].any() and not J[1].any()
    assert jacobian.losses()[1] == 0


def test_float64_is_kept(net: Net) -> None:
    net.double()
    jacobian = Jacobian(net.shared(), UNITS)
    jacobian.add([(1, net.loss(1, images(0).double()))])
    assert jacobian.matrix().dtype == torch.float64


def test_a_unit_whose_gradient_is_not_finite_is_named(net: Net) -> None:
    before = [p.grad for p in net.shared()]
    jacobian = Jacobian(net.shared(), UNITS)
    losses = [(unit, net.loss(unit, images(0))) for unit in range(3)]
    jacobian.add([(0, losses[0][1]), (1, losses[1][1] * float("inf")), losses[2]])
    weighting = Rows(1.0, 1.0, 1.0)
    with raises(Diverged, "bees/depth", try_="train.lr") as error:
        jacobian.apply(weighting)
    assert not any(unit in str(error.value) for unit in (UNITS[0], UNITS[2]))
    assert weighting.gram is None
    assert [p.grad for p in net.shared()] == before


def test_scaled_up_losses_give_scaled_up_gradients(net: Net) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    twin = copy.deepcopy(net)
    jacobian, plain = Jacobian(net.shared(), UNITS, scaler), Jacobian(twin.shared(), UNITS)
    jacobian.add([(unit, net.loss(unit, images(unit))) for unit in range(3)], net.own())
    plain.add([(unit, twin.loss(unit, images(unit))) for unit in range(3)], twin.own())
    assert torch.allclose(jacobian.matrix(), plain.matrix(), atol=1e-7)
    assert torch.allclose(jacobian.losses(), plain.losses())
    jacobian.apply(Rows(1.0, 2.0, 0.0))
    plain.apply(Rows(1.0, 2.0, 0.0))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.grad is not None])
    scaler.unscale_(optimizer)
    for got, expected in zip(net.parameters(), twin.parameters(), strict=True):
        if expected.grad is not None:
            assert got.grad is not None
            assert torch.allclose(got.grad, expected.grad, atol=1e-6)


def test_an_overflow_is_left_to_the_scaler(net: Net) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = net.one.weight.detach().clone()
    jacobian = Jacobian(net.shared(), UNITS, scaler)
    jacobian.add([(0, net.loss(0, images(0)) * 1e38), (1, net.loss(1, images(0)))])
    weighting = Rows(1.0, 1.0)
    jacobian.apply(weighting)
    assert weighting.gram is None
    scaler.step(torch.optim.SGD(net.one.parameters(), lr=1.0))
    assert torch.equal(net.one.weight, before)


def test_the_gram_matrix_is_summed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLUMNS", 7)
    J = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    expected = [
        [sum(a * b for a, b in zip(x, y, strict=True)) for y in J.tolist()] for x in J.tolist()
    ]
    assert gram(J).dtype == torch.float64
    assert torch.allclose(gram(J), torch.tensor(expected, dtype=torch.float64), rtol=1e-12)


def test_a_weighting_on_the_jacobian_returns_the_gradient() -> None:
    class Last(Weighting):
        needs_jacobian = True

        def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
            return jacobian_KP[-1] * losses_K[0]

    J = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weighting = Last(Setup(UNITS[:2]), {})
    got = shared_gradient(weighting, J, torch.tensor([2.0, 9.0]), [0, 1])
    assert got.tolist() == [6.0, 8.0]
