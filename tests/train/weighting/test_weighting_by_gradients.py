"""gradnorm and db-mtl against slow, obvious references."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from onetrunk.train.jacobian import gram
from onetrunk.train.weighting import Weighting, make_weighting

UNITS = ("ants/classify", "bees/depth", "bees/classify")
ALL = (0, 1, 2)


def make(name: str, **settings: Any) -> Weighting:
    return make_weighting(name, UNITS, settings=settings)


def losses(step: int) -> Tensor:
    return torch.rand(3, generator=torch.Generator().manual_seed(step)) + 0.1


def rows(step: int) -> Tensor:
    chance = torch.Generator().manual_seed(step)
    return torch.randn(3, 8, generator=chance) * torch.tensor([[5.0], [1.0], [0.2]])


def test_gradnorm_is_adam_on_the_papers_loss() -> None:
    made = make("gradnorm", alpha=0.7, lr=0.1)
    v = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([v], lr=0.1)
    for step in range(12):
        J, ell = rows(step), losses(step)
        w = 3 * torch.softmax(v, 0)
        assert torch.allclose(made.weights_from_gram(gram(J), ell, ALL), w.detach(), rtol=1e-4)
        made.update(ell, ALL)
        G = torch.stack([(w[u] * J[u]).norm() for u in ALL])
        rate = ell / losses(0)
        target = (G.mean() * (rate / rate.mean()) ** 0.7).detach()
        (v.grad,) = torch.autograd.grad((G - target).abs().sum(), v)
        adam.step()


def test_gradnorm_converges_to_equal_lengths() -> None:
    made, J = make("gradnorm", lr=0.02), rows(0)
    for _ in range(400):
        weights = made.weights_from_gram(gram(J), torch.ones(3), ALL)
    lengths = weights * J.norm(dim=1)
    assert float(lengths.max() / lengths.min()) < 1.1
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)


def test_gradnorm_gives_more_weight_to_units_that_learn_slowly() -> None:
    made, J = make("gradnorm", alpha=1.5), torch.eye(3)
    for ell in ([1.0, 1.0, 1.0], *[[0.2, 0.5, 1.0]] * 30):
        weights = made.weights_from_gram(gram(J), torch.tensor(ell), ALL)
    assert weights[0] < weights[2] and weights[1] < weights[2]


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl_by_hand(sigma: float) -> None:
    made = make("db-mtl", beta=0.8, sigma=sigma)
    mean: list[list[float]] = []
    for step in range(5):
        J, ell = rows(step), losses(step)
        new = [[g / loss for g in row] for row, loss in zip(J.tolist(), ell.tolist(), strict=True)]
        beta = 0.8 / (step + 1) ** sigma
        mean = (
            [
                [beta * a + (1 - beta) * b for a, b in zip(old, row, strict=True)]
                for old, row in zip(mean, new, strict=True)
            ]
            if mean
            else new
        )
        length = [math.sqrt(sum(x * x for x in row)) for row in mean]
        total = [
            sum(row[i] * max(length) / n for row, n in zip(mean, length, strict=True))
            for i in range(8)
        ]
        harmonic = 3 / sum(1 / loss for loss in ell.tolist())
        expected = torch.tensor([harmonic * x / 3 for x in total])
        assert torch.allclose(made.combine(J, ell, ALL), expected, rtol=1e-4, atol=1e-5)
        made.update(ell, ALL)


def test_db_mtl_gives_every_unit_the_same_length() -> None:
    made = make("db-mtl", beta=0.0)
    J = torch.diag(torch.tensor([3.0, 0.01, 7.0]))
    combined = made.combine(J, torch.tensor([1.0, 2.0, 0.5]), ALL)
    assert torch.allclose(combined, combined[0].expand(3))


def test_db_mtl_averages_each_unit_separately() -> None:
    made = make("db-mtl")
    made.combine(rows(0)[:2], losses(0)[:2], (0, 2))
    assert made.state().keys() == {"step", "mean/0", "mean/2"}
    before = made.state()["mean/2"].clone()
    made.combine(rows(1)[:1], losses(1)[:1], (1,))
    assert torch.equal(made.state()["mean/2"], before)


def test_a_gradient_of_zero_stays_zero() -> None:
    J = rows(0) * torch.tensor([[1.0], [0.0], [1.0]])
    assert make("db-mtl").combine(J, losses(0), ALL).isfinite().all()
    assert make("gradnorm").weights_from_gram(gram(J), losses(0), ALL).isfinite().all()
    assert not make("db-mtl").combine(0 * J, losses(0), ALL).any()
