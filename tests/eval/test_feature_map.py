"""The feature map: t-SNE against autograd and numpy, and the map of a network."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.eval.feature_map import affinities, feature_map, gradient, pca, tsne
from tests.helpers.errors import raises
from tests.helpers.small import domain, network


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_affinities_have_the_perplexity_and_are_symmetric() -> None:
    x = random(60, 5) * torch.linspace(0.2, 5, 60)[:, None]  # dense and isolated points
    p = affinities(x, 12.0)
    assert p.sum().item() == pytest.approx(1)
    torch.testing.assert_close(p, p.T)
    assert p.diagonal().abs().max() == 0
    # the distribution of one point, by bisection
    squared = ((x[3] - x) ** 2).sum(1)
    low, high = 1e-6, 1e6
    for _ in range(200):
        beta = math.sqrt(low * high)
        w = torch.exp(-squared * beta)
        w[3] = 0
        q = w / w.sum()
        if -(q[q > 0] * q[q > 0].log()).sum() > math.log(12):
            low = beta
        else:
            high = beta
    others = 2 * 60 * p[3] - q  # the shares of point 3 in the distributions of the others
    assert (others > -1e-6).all()


def test_the_gradient_is_that_of_autograd() -> None:
    p = affinities(random(20, 4), 5.0)
    y = random(20, 2, seed=1).requires_grad_()
    near = 1 / (1 + ((y[:, None] - y[None]) ** 2).sum(2))
    near = near * (1 - torch.eye(20))
    q = near / near.sum()
    off = ~torch.eye(20, dtype=torch.bool)
    divergence = (p[off] * (p[off] / q[off]).log()).sum()
    (expected,) = torch.autograd.grad(divergence, y)
    torch.testing.assert_close(gradient(p, y.detach()), expected)


def test_principal_components_equal_numpys() -> None:
    x = random(30, 6) @ random(6, 6, seed=1) + 4
    found, kept = pca(x, 2)
    values, vectors = np.linalg.eigh(np.cov(x.numpy().T))
    top = (x - x.mean(0)).numpy() @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(found.numpy()), np.abs(top), rtol=1e-6, atol=1e-9)
    assert kept == pytest.approx(values[::-1][:2].sum() / values.sum())
    turned, _ = pca(x.flip(0), 2)
    torch.testing.assert_close(turned.flip(0), found)  # signs are fixed


def test_separate_groups_are_separate_on_the_map() -> None:
    centres = 20 * torch.eye(4).double()
    x = torch.cat([random(40, 4, seed=i) + centres[i] for i in range(4)])
    y = tsne(x, 15.0)
    group = torch.arange(4).repeat_interleave(40)
    nearest = torch.cdist(y, y).fill_diagonal_(math.inf).argmin(1)
    assert (group[nearest] == group).double().mean() == 1
    assert torch.equal(y, tsne(x, 15.0))


def test_the_map_of_two_domains() -> None:
    domains = [domain("a"), domain("b", seed=1)]
    model = network(domains)
    found = feature_map(model, domains, points=40)
    assert found.domains == ("a", "b")
    assert found.domain.tolist() == [0] * 20 + [1] * 20
    assert found.xy.shape == (40, 2)
    assert np.ptp(found.xy, axis=0).max() == pytest.approx(1)
    assert np.abs(found.xy).max() <= 0.5 + 1e-9
    assert 0.5 < found.own_neighbour <= 1
    assert found.features == 64 and 0 < found.explained_variance <= 1 + 1e-9
    assert found.perplexity == 13


def test_equal_features_and_too_few_images() -> None:
    assert torch.isfinite(tsne(torch.ones(12, 3).double(), 3.0)).all()
    few = domain("a", count=3)
    with raises(BadInput, "at least 4", got=3):
        feature_map(network([few]), [few])
