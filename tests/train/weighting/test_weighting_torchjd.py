"""TorchJD's weightings: properties from the papers, and values by other methods."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.train.jacobian import shared_gradient
from onetrunk.train.weighting import make_weighting
from onetrunk.train.weighting._torchjd import (
    NOT_OFFERED,
    REGULARIZATION,
    TORCHJD,
    project,
)

aggregation = pytest.importorskip("torchjd.aggregation")

TWO = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])  # of TorchJD's documentation
THREE = torch.tensor([[1.0, 0.2, 0.0, 0.1], [-0.8, 0.5, 0.3, 0.0], [0.1, -0.6, 0.9, 2.0]])


def weighted(name: str, J: Tensor, **settings: Any) -> Tensor:
    """The shared gradient, in doubles."""
    made = make_weighting(name, [f"d{i}/t" for i in range(len(J))], settings=settings)
    return shared_gradient(made, J.double(), torch.ones(len(J)), range(len(J)))


def close(got: Tensor, expected: Any, tolerance: float = 1e-4) -> bool:
    expected = torch.as_tensor(expected).double()
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("name", list(TORCHJD))
def test_orthogonal_gradients_of_one_length_give_a_multiple_of_their_mean(name: str) -> None:
    got = weighted(name, 3 * torch.eye(4))
    assert close(got / got.norm(), torch.full((4,), 0.5), 1e-3)


@pytest.mark.parametrize("name", ["pcgrad", "upgrad", "dualproj", "graddrop"])
def test_without_conflicts_the_gradient_is_the_mean(name: str) -> None:
    J = THREE.abs()
    assert close(weighted(name, J), J.mean(0), 1e-3)


def test_pcgrad_of_two_by_hand() -> None:
    g, h = TWO.double()
    dot = float(g @ h)
    expected = (g - dot / float(h @ h) * h) + (h - dot / float(g @ g) * g)
    assert close(weighted("pcgrad", TWO), expected / 2)  # the paper sums, we average


def test_pcgrads_orders_depend_on_seed_and_step() -> None:
    J = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    G = (J @ J.T).double()
    made = [make_weighting("pcgrad", [f"d{i}/t" for i in range(6)], seed=s) for s in (0, 0, 1)]
    one, again, other = (m.weights_from_gram(G, torch.ones(6), range(6)) for m in made)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    made[0].update(torch.ones(6), range(6))
    assert not torch.allclose(one, made[0].weights_from_gram(G, torch.ones(6), range(6)))


def test_upgrad_as_documented() -> None:
    assert close(weighted("upgrad", TWO), [0.2929, 1.9004, 1.9004], 1e-3)


def least(u: np.ndarray, G: np.ndarray) -> np.ndarray:
    """The minimiser of vᵀGv over v ≥ u, by trying every set of active bounds."""
    best, found = math.inf, u
    for tight in itertools.product([True, False], repeat=len(u)):
        free = [i for i, t in enumerate(tight) if not t]
        fixed = [i for i, t in enumerate(tight) if t]
        v = u.copy()
        if free:
            v[free] = np.linalg.solve(G[np.ix_(free, free)], -G[np.ix_(free, fixed)] @ u[fixed])
        if (v >= u - 1e-12).all() and v @ G @ v < best:
            best, found = v @ G @ v, v
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_minimiser(seed: int) -> None:
    chance = np.random.default_rng(seed)
    J = chance.normal(size=(4, 3))
    G, U = J @ J.T, np.diag(chance.uniform(0.1, 1, 4))
    regular = G / np.trace(G) + REGULARIZATION * np.eye(4)
    expected = np.stack([least(u, regular) for u in U])
    assert np.allclose(project(U, G), expected, atol=1e-8)
    assert np.allclose(project(U[0], G), expected[0], atol=1e-8)


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "mgda", "cagrad"])
def test_no_loss_increases(name: str) -> None:
    for seed in range(5):
        J = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
        got = weighted(name, J, **({"c": 1.0} if name == "cagrad" else {}))
        inner = J.double() @ got
        assert float(inner.min()) > -2e-3 * float(inner.abs().max())


def test_dualproj_is_the_conflict_free_gradient_closest_to_the_mean() -> None:
    got, mean = weighted("dualproj", TWO), TWO.double().mean(0)
    harmed = TWO[0].double()  # ⟨mean, g⟩ < 0: the projection lies on its boundary
    assert float(mean @ harmed) < 0
    assert close(got, mean - (mean @ harmed) / (harmed @ harmed) * harmed, 1e-3)


def test_mgda_of_two_is_the_shortest_between_them() -> None:
    g, h = TWO.double()
    share = float(((h - g) @ h) / ((h - g) @ (h - g)))
    assert 0 < share < 1
    assert close(weighted("mgda", TWO), share * g + (1 - share) * h, 1e-3)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_cagrad_is_the_best_for_the_worst_within_its_ball(c: float) -> None:
    J = torch.tensor([[1.0, 0.4], [-0.7, 1.5]]).double()
    mean = J.mean(0)
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    round_it = mean + c * mean.norm() * torch.stack([angle.cos(), angle.sin()], 1)
    best = round_it[(round_it @ J.T).min(1).values.argmax()]
    assert close(weighted("cagrad", J, c=c), best / (1 + c), 2e-3)


def test_weights_do_not_depend_on_the_scale_of_the_gradients() -> None:
    for name in TORCHJD.keys() - {"graddrop"}:
        assert close(1e6 * weighted(name, 1e-6 * THREE), weighted(name, THREE)), name


def test_imtl_g_has_equal_projections() -> None:
    got = weighted("imtl-g", THREE)
    inner = torch.nn.functional.normalize(THREE.double()) @ got
    assert close(inner, inner.mean().expand(3))


def test_aligned_mtl_by_singular_values() -> None:
    u, s, v = torch.linalg.svd(THREE.double(), full_matrices=False)
    assert close(weighted("aligned-mtl", THREE), (s.min() * u @ v).mean(0))


def test_fairgrad_with_alpha_1_is_nash_mtl() -> None:
    got = weighted("fairgrad", THREE)
    weights = torch.linalg.lstsq(THREE.double().T, got).solution
    inner = THREE.double() @ got
    product = inner * weights  # G·x = 1/x, up to a common factor
    assert close(product, product.mean().expand(3), 1e-3)
    assert float(weights.sum()) == pytest.approx(1)


def test_config_has_equal_cosines_and_the_length_of_the_mean_projection() -> None:
    got = weighted("config", THREE)
    cosines = torch.nn.functional.normalize(THREE.double()) @ got / got.norm()
    assert close(cosines, cosines.mean().expand(3))
    assert float(got.norm()) == pytest.approx(float((THREE.double() @ got).mean() / got.norm()))


def test_graddrop_keeps_one_sign_in_each_entry() -> None:
    J = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)).double()
    got = weighted("graddrop", J)
    up, down = J.clamp_min(0).sum(0) / 3, J.clamp_max(0).sum(0) / 3
    chose_up = torch.isclose(got, up)
    assert (chose_up | torch.isclose(got, down)).all()
    odds = up / (up - down)  # of the positive sign
    assert abs(float(chose_up.double().mean() - odds.mean())) < 0.1
    assert torch.equal(got, weighted("graddrop", J))


def test_every_method_of_torchjd_is_offered_or_listed_as_not_offered() -> None:
    bases = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator", "Weighting"}
    spelled = {
        "AlignedMTL": "aligned-mtl", "CRMOGM": "cr-mogm", "ExcessMTL": "excess-mtl",
        "IMTLG": "imtl-g", "NashMTL": "nash-mtl", "TrimmedMean": "trimmed-mean",
    }  # fmt: skip
    exported = {name.removesuffix("Weighting") for name in set(aggregation.__all__) - bases}
    assert {spelled.get(name, name.lower()) for name in exported} == {*TORCHJD, *NOT_OFFERED}
