"""Linear CKA: its definition by centred kernels, properties, and similarity of domains."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.eval.similarity import linear_cka, similarity
from tests.helpers.errors import raises
from tests.helpers.small import domain, network


def by_definition(x: Tensor, y: Tensor) -> float:
    """Return CKA with the centring matrix, as in the paper."""
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = x.double() @ x.double().T, y.double() @ y.double().T

    def hsic(a: Tensor, b: Tensor) -> float:
        return float(torch.trace(a @ h @ b @ h)) / (n - 1) ** 2

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def by_sums(x: Tensor, y: Tensor) -> float:
    """Return CKA with HSIC as a mean over different i, j, q, r (Song et al., section 2)."""
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


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_both_estimates_equal_their_definitions() -> None:
    x, y = random(7, 5), random(7, 3, seed=1) + random(7, 5)[:, :3]
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), rel=1e-10)
    assert linear_cka(x, y, unbiased=True) == pytest.approx(by_sums(x, y), rel=1e-8)


def test_pinned_value() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert linear_cka(x, y) == pytest.approx(0.2)  # of single columns it is the squared correlation


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_is_invariant_to_rotation_scale_and_shift(unbiased: bool) -> None:
    x, y = random(40, 6), random(40, 6) + random(40, 6, seed=1)
    rotation = torch.linalg.qr(random(6, 6, seed=2)).Q
    value = linear_cka(x, y, unbiased)
    assert linear_cka(1e-20 * x @ rotation - 3e-20, 5 * y + 1, unbiased) == pytest.approx(
        value, rel=1e-4
    )
    assert linear_cka(y, x, unbiased) == pytest.approx(value)
    assert linear_cka(x, 2 * x @ rotation, unbiased) == pytest.approx(1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    assert linear_cka(x[order], y[order], unbiased) == pytest.approx(value)


def test_unrelated_features_have_low_cka_only_without_bias() -> None:
    x, y = random(60, 300), random(60, 300, seed=1)
    assert linear_cka(x, y) > 0.7
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1


def test_constant_features_have_no_cka() -> None:
    assert math.isnan(linear_cka(torch.full((9, 3), 0.1), random(9, 3)))
    with raises(BadInput, "same images", got=(4, 5)):
        linear_cka(random(4, 2), random(5, 2))
    with raises(BadInput, "at least 4", got=3):
        linear_cka(random(3, 2), random(3, 2), unbiased=True)


def test_similarity_of_domains_decreases_with_depth() -> None:
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


def test_equal_slots_have_similarity_one() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    model = network(domains, norm="shared")
    found = similarity(dict.fromkeys("ab", model), domains, images=32)
    np.testing.assert_allclose(found.cka, 1, atol=1e-6)


def test_separate_networks_are_compared() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    models = {d.name: network([d], seed=i, sharing="none") for i, d in enumerate(domains)}
    found = similarity(models, domains, images=64)
    assert np.isfinite(found.cka).all() and found.mean()[-1] < 0.99
    with raises(BadInput, "two domains", got=1):
        similarity(models, domains[:1])
