"""equal, fixed, uncertainty, dwa, rlw, famo, stch against slow, obvious references."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.train.weighting import Weighting, make_weighting
from tests.helpers.errors import raises

UNITS = ("ants/classify", "bees/depth", "bees/classify")
ALL = (0, 1, 2)


def make(name: str, epoch: int = 100, seed: int = 0, **settings: Any) -> Weighting:
    return make_weighting(name, UNITS, settings=settings, epoch=epoch, seed=seed)


def losses(step: int, count: int = 3) -> Tensor:
    chance = torch.Generator().manual_seed(step)
    return torch.rand(count, generator=chance) * torch.tensor([4.0, 1.0, 0.1])[:count] + 0.05


def close(got: Tensor, expected: Any, tolerance: float = 1e-5) -> bool:
    return torch.allclose(got.double(), torch.as_tensor(expected).double(), rtol=tolerance)


def test_equal() -> None:
    assert make("equal").weights(None, [2, 0]).tolist() == [1.0, 1.0]


def test_fixed_weights_of_units_precede_those_of_domains_and_the_mean_is_one() -> None:
    weights = {"bees": 3, "bees/depth": 0.5}  # and ants 1
    made = make_weighting("fixed", UNITS, settings=weights)
    assert close(made.weights(None, ALL), [1 / 1.5, 0.5 / 1.5, 3 / 1.5])
    assert close(made.weights(None, [2, 1]), [2.0, 1 / 3])
    assert make("fixed", ants=0).weights(None, ALL).tolist() == [0.0, 1.5, 1.5]
    assert make("fixed").weights(None, ALL).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("name", "available"), [("bee", "bees"), ("bees/class", "bees/classify")])
def test_fixed_weights_of_an_unknown_unit_are_refused(name: str, available: str) -> None:
    with raises(BadInput, "train.weighting_settings", got=name, available=(available, *UNITS)):
        make_weighting("fixed", UNITS, settings={name: 1.0})


@pytest.mark.parametrize("value", [-1.0, float("inf"), True, "2"])
def test_fixed_weights_must_be_numbers_from_0(value: object) -> None:
    with raises(BadInput, "train.weighting_settings.bees", got=value):
        make("fixed", bees=value)


def test_fixed_weights_must_not_be_nan_or_all_0() -> None:
    with raises(BadInput, "train.weighting_settings.bees", "nan"):
        make("fixed", bees=float("nan"))
    with raises(BadInput, "train.weighting_settings", got="all 0"):
        make("fixed", bees=0, ants=0)


def test_uncertainty_is_adam_on_the_papers_loss() -> None:
    made = make("uncertainty", lr=0.05)
    s = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.05)
    for step in range(12):
        weights = torch.exp(-s.detach())
        assert close(made.weights(None, ALL), weights / weights.mean())
        adam.zero_grad()
        torch.autograd.backward((torch.exp(-s) * losses(step) + s).sum())
        adam.step()
        made.update(losses(step), ALL)


def test_uncertainty_converges_to_the_inverse_of_the_losses() -> None:
    made = make("uncertainty", lr=0.02)
    for _ in range(400):
        made.update(torch.tensor([4.0, 1.0, 0.5]), ALL)
    weights = made.weights(None, ALL)
    assert close(weights / weights[1], [0.25, 1.0, 2.0], 0.02)


def test_a_unit_that_is_not_in_a_step_keeps_its_state() -> None:
    made = make("uncertainty")
    made.update(losses(0), ALL)
    before = {key: tensor.clone() for key, tensor in made.state().items()}
    made.update(losses(1)[:2], [0, 2])
    for key, tensor in made.state().items():
        if key != "step":
            assert tensor[1] == before[key][1]
            assert tensor[0] != before[key][0]


def test_dwa_by_hand() -> None:
    """With windows of two steps and a temperature of 0.5."""
    made = make("dwa", temperature=0.5, window=2)
    windows: list[list[float]] = []
    for step in range(8):
        if len(windows) < 2:
            expected = [1.0, 1.0, 1.0]
        else:
            grown = [math.exp(b / a / 0.5) for a, b in zip(windows[-2], windows[-1], strict=True)]
            expected = [3 * g / sum(grown) for g in grown]
        assert close(made.weights(None, ALL), expected)
        made.update(losses(step), ALL)
        if step % 2:
            windows.append(((losses(step) + losses(step - 1)) / 2).tolist())


def test_dwa_keeps_the_ratio_of_units_without_a_step() -> None:
    made = make("dwa", epoch=1)
    made.update(torch.tensor([2.0, 2.0, 2.0]), ALL)
    made.update(torch.tensor([1.0, 2.0]), (0, 1))
    half = [math.exp(r / 2) for r in (0.5, 1.0, 1.0)]
    assert close(made.weights(None, ALL), [3 * h / sum(half) for h in half])
    made.update(torch.tensor([1.0, 6.0]), (1, 2))  # the last window of unit 2 was the first
    last = [math.exp(r / 2) for r in (0.5, 0.5, 3.0)]
    assert close(made.weights(None, ALL), [3 * h / sum(last) for h in last])


def test_rlw_is_a_softmax_of_normal_draws_for_each_seed_step_and_name() -> None:
    made, found = make("rlw", seed=3), []
    for _ in range(2000):
        found.append(made.weights(None, ALL))
        assert torch.equal(found[-1], made.weights(None, ALL))  # twice in a step: the same
        made.update(losses(0), ALL)
    drawn = torch.stack(found)
    assert close(drawn.sum(1), torch.full((2000,), 3.0))
    logs = drawn.log()
    apart = logs[:, 0] - logs[:, 1]  # of two normal draws: variance 2
    assert abs(float(apart.mean())) < 0.1
    assert abs(float(apart.var()) - 2) < 0.2
    assert not torch.equal(make("rlw", seed=4).weights(None, ALL), found[0])
    assert close(found[0][[2, 0]], make("rlw", seed=3).weights(None, [2, 0]))


def test_rlw_pinned() -> None:
    expected = [0.4549725, 0.9699048, 1.5751228]
    assert make("rlw").weights(None, ALL).tolist() == pytest.approx(expected, rel=1e-6)


def test_famo_is_adam_on_its_logits() -> None:
    made = make("famo", gamma=0.01, lr=0.1)
    xi = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=0.1)
    for step in range(12):
        before, after = losses(step), losses(step + 100)
        ell = before.clone().requires_grad_(True)
        z = torch.softmax(xi.detach(), 0)
        c = 1 / (z / before).sum()
        (slope,) = torch.autograd.grad((c * z * ell.log()).sum(), ell)
        weights = made.weights(before, ALL)
        assert close(weights, 3 * slope)
        assert close(weights.sum(), 3.0)
        made.update(before, ALL)
        made.update_after(after, ALL)
        (xi.grad,) = torch.autograd.grad(
            (torch.softmax(xi, 0) * (before.log() - after.log())).sum() + 0.005 * xi.square().sum(),
            xi,
        )
        adam.step()


def test_famo_lowers_the_weight_of_the_loss_that_falls_fastest() -> None:
    made = make("famo")
    for _ in range(20):
        made.update(torch.ones(3), ALL)
        made.update_after(torch.tensor([0.5, 0.9, 1.0]), ALL)
    weights = made.weights(torch.ones(3), ALL).tolist()
    assert weights[0] < weights[1] < weights[2]


def test_famo_needs_the_losses_before_those_after() -> None:
    with pytest.raises(RuntimeError) as error:
        make("famo").update_after(losses(0), ALL)
    assert "update_after" in str(error.value)
    with pytest.raises(RuntimeError) as error:
        make("famo").weights(None, ALL)
    assert type(make("famo")).__name__ in str(error.value)


@pytest.mark.parametrize("mu", [0.2, 1.0, 5.0])
def test_stch_is_the_gradient_of_the_smooth_maximum(mu: float) -> None:
    made = make("stch", mu=mu, warmup=3)
    for step in range(6):
        ell = losses(step).requires_grad_(True)
        if step < 3:
            (slope,) = torch.autograd.grad(ell.log().mean(), ell)
        else:
            start = sum(losses(s) for s in range(3)) / 3
            (slope,) = torch.autograd.grad(mu * torch.logsumexp((ell / start).log() / mu, 0), ell)
        assert close(made.weights(ell.detach(), ALL), 3 * slope / slope.sum())
        made.update(ell.detach(), ALL)


def test_stch_with_small_mu_weighs_only_the_worst_unit() -> None:
    made = make("stch", mu=0.001, warmup=1)
    made.update(torch.tensor([1.0, 2.0, 4.0]), ALL)
    assert close(made.weights(torch.tensor([0.5, 1.5, 2.0]), ALL), [0.0, 3.0, 0.0])


def test_a_loss_of_0_gives_finite_weights() -> None:
    for name in ("famo", "stch", "uncertainty", "dwa"):
        made = make(name, epoch=1)
        for _ in range(3):
            weights = made.weights(torch.zeros(3) if made.needs_losses else None, ALL)
            assert weights.isfinite().all(), name
            made.update(torch.zeros(3), ALL)
            made.update_after(torch.zeros(3), ALL)
