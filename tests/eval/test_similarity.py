"""Linear CKA against its definition by centred kernels, its properties, and over domains."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.eval.similarity import linear_cka, similarity
from tests.helpers.small import domain, network


def by_definition(x: Tensor, y: Tensor) -> float:
    """HSIC by the centring matrix, as the paper writes it."""
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = x.double() @ x.double().T, y.double() @ y.double().T

    def hsic(a: Tensor, b: Tensor) -> float:
        return float(torch.trace(a @ h @ b @ h)) / (n - 1) ** 2

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def by_sums(x: Tensor, y: Tensor) -> float:
    """Unbiased HSIC as a mean over all i, j, q, r that differ (Song et al., section 2)."""
    n = len(x)
    a, b = (v.double() - v.double().mean(0) for v in (x, y))
    k, m = a @ a.T, b @ b.T

    def hsic(k: Tensor, m: Tensor) -> float:
        pairs = triples = quads = 0.0
        for i in range(n):
            for j in range(n):
                if j == i:
                    continue
                pairs += float(k[i, j] * m[i, j])
                for q in range(n):
                    if q in (i, j):
                        continue
                    triples += float(k[i, j] * m[i, q])
                    for r in range(n):
                        if r not in (i, j, q):
                            quads += float(k[i, j] * m[q, r])
        two, three, four = (math.perm(n, c) for c in (2, 3, 4))
        return pairs / two + quads / four - 2 * triples / three

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_both_estimates_are_their_definitions() -> None:
    x, y = drawn(7, 5), drawn(7, 3, seed=1) + drawn(7, 5)[:, :3]
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), rel=1e-10)
    assert linear_cka(x, y, unbiased=True) == pytest.approx(by_sums(x, y), rel=1e-8)


def test_pinned() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert linear_cka(x, y) == pytest.approx(0.2)  # of single columns: their correlation, squared


@pytest.mark.parametrize("unbiased", [False, True])
def test_turning_scaling_and_shifting_change_nothing(unbiased: bool) -> None:
    x, y = drawn(40, 6), drawn(40, 6) + drawn(40, 6, seed=1)
    turn = torch.linalg.qr(drawn(6, 6, seed=2)).Q
    value = linear_cka(x, y, unbiased)
    assert linear_cka(1e-20 * x @ turn - 3e-20, 5 * y + 1, unbiased) == pytest.approx(
        value, rel=1e-4
    )
    assert linear_cka(y, x, unbiased) == pytest.approx(value)
    assert linear_cka(x, 2 * x @ turn, unbiased) == pytest.approx(1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    assert linear_cka(x[order], y[order], unbiased) == pytest.approx(value)


def test_unrelated_features_are_unlike_only_without_bias() -> None:
    x, y = drawn(60, 300), drawn(60, 300, seed=1)
    assert linear_cka(x, y) > 0.7
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1


def test_features_that_do_not_vary_have_none() -> None:
    assert math.isnan(linear_cka(torch.full((9, 3), 0.1), drawn(9, 3)))
    with pytest.raises(BadInput, match="same images"):
        linear_cka(drawn(4, 2), drawn(5, 2))
    with pytest.raises(BadInput, match="at least 4"):
        linear_cka(drawn(3, 2), drawn(3, 2), unbiased=True)


def test_domains_of_one_network_part_where_their_slots_do() -> None:
    domains = [domain("a"), domain("b", seed=1), domain("c", seed=2)]
    model = network(domains)
    model.train()
    found = similarity(dict.fromkeys("abc", model), domains, images=48)
    assert model.training and model.trunk.training
    assert found.depths == ("stem", "stage 1", "stage 2", "stage 3", "pooled")
    assert found.images == 48
    assert found.cka.shape == (5, 3, 3)
    np.testing.assert_allclose(found.cka, found.cka.transpose(0, 2, 1))
    np.testing.assert_allclose(found.cka[-1], found.cka[-2])  # pooling is the map's mean
    means = found.mean()
    assert means[0] > means[3] and max(means) < 0.9999
    again = similarity(dict.fromkeys("abc", model), domains, images=48)
    np.testing.assert_array_equal(found.cka, again.cka)


def test_slots_that_are_equal_give_one() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    model = network(domains, norm="shared")
    found = similarity(dict.fromkeys("ab", model), domains, images=32)
    np.testing.assert_allclose(found.cka, 1, atol=1e-6)


def test_networks_of_their_own_are_compared_too() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    models = {d.name: network([d], seed=i, sharing="none") for i, d in enumerate(domains)}
    found = similarity(models, domains, images=64)
    assert np.isfinite(found.cka).all() and found.mean()[-1] < 0.99
    with pytest.raises(BadInput, match="at least two"):
        similarity(models, domains[:1])
