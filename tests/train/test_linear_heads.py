"""Linear heads: each solution is the optimum of its objective, for raw features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from onetrunk.train import linear_heads as linear
from onetrunk.train.linear_heads import Design, classify, contrast, directions, multilabel, ridge

CPU = torch.device("cpu")


def features(n: int = 90, wide: int = 7, seed: int = 0) -> np.ndarray:
    """Correlated features of different scales and means; the last is constant."""
    rng = np.random.default_rng(seed)
    mixed = (
        rng.normal(size=(n, wide)) @ rng.normal(size=(wide, wide)) * 10.0 ** np.arange(wide)[::-1]
    )
    mixed = mixed + rng.normal(size=wide) * 100
    mixed[:, -1] = 3.5
    return mixed.astype(np.float32)


def standard(f: np.ndarray) -> torch.Tensor:
    """Standardised features."""
    wide = f.astype(np.float64)
    std = wide.std(0)
    return torch.from_numpy((wide - wide.mean(0)) / np.where(std > 0, std, 1))


def three(n: int = 90, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, n))


def standardised_map(solved: linear.Solution, f: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert a linear map of raw features into one of standardised features."""
    wide = torch.from_numpy(f.astype(np.float64))
    weight = solved.weight * wide.std(0, correction=0)
    return weight, solved.bias + solved.weight @ wide.mean(0)


@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_regression_is_at_the_optimum(weighted: bool) -> None:
    f, y = features(), three()
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64) if weighted else None
    x = standard(f)
    for solved in classify(Design(f, np.arange(90), CPU), y, weights, 3, (1.0, 1e-2, 1e-5)):
        w, b = (t.clone().requires_grad_() for t in standardised_map(solved, f))
        loss = F.cross_entropy(x @ w.T + b, y, weights) + solved.l2 / 2 * w.square().sum()
        torch.autograd.backward(loss)
        assert w.grad is not None and b.grad is not None
        largest = max(float(w.grad.abs().max()), float(b.grad.abs().max()))
        assert largest < 1e-5
        assert solved.gradient == pytest.approx(largest, abs=1e-7)


def test_logistic_regression_agrees_with_scipy() -> None:
    f, y = features(60, 4), three(60)
    x, hot = standard(f).numpy(), np.eye(3)[three(60).numpy()]

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = theta[:12].reshape(3, 4), theta[12:]
        z = x @ w.T + b
        z -= z.max(1, keepdims=True)
        log = z - np.log(np.exp(z).sum(1, keepdims=True))
        off = (np.exp(log) - hot) / len(x)
        value = -(log * hot).sum() / len(x) + 0.05 / 2 * (w**2).sum()
        return value, np.concatenate([(off.T @ x + 0.05 * w).ravel(), off.sum(0)])

    found = minimize(objective, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    (solved,) = classify(Design(f, np.arange(60), CPU), y, None, 3, (0.05,))
    w, b = standardised_map(solved, f)
    np.testing.assert_allclose(w.numpy(), found[:12].reshape(3, 4), atol=1e-4)
    np.testing.assert_allclose((b - b.mean()).numpy(), found[12:] - found[12:].mean(), atol=1e-4)


def test_classes_of_multilabel_are_independent_regressions() -> None:
    f, rng = features(), np.random.default_rng(2)
    y = torch.from_numpy(rng.integers(0, 2, (90, 3)).astype(np.uint8))
    x = Design(f, np.arange(90), CPU)
    (together,) = multilabel(x, y, (1e-2,))
    for c in range(3):
        (one,) = multilabel(x, y[:, c : c + 1], (1e-2,))
        ours, alone = standardised_map(together, f)[0][c], standardised_map(one, f)[0][0]
        np.testing.assert_allclose(ours.numpy(), alone.numpy(), atol=1e-4)
    w, b = (t.clone().requires_grad_() for t in standardised_map(together, f))
    each = F.binary_cross_entropy_with_logits(standard(f) @ w.T + b, y.double(), reduction="none")
    torch.autograd.backward(each.sum(1).mean() + 1e-2 / 2 * w.square().sum())
    assert w.grad is not None and b.grad is not None
    assert max(float(w.grad.abs().max()), float(b.grad.abs().max())) < 1e-5


def test_ridge_solves_the_normal_equations() -> None:
    f, rng = features(), np.random.default_rng(3)
    y = torch.from_numpy(rng.normal(size=(90, 2)) + 5)
    x = standard(f)
    grid = (1.0, 1e-3)
    for l2, solved in zip(grid, ridge(Design(f, np.arange(90), CPU), y, grid), strict=True):
        assert solved.l2 == l2
        w, b = standardised_map(solved, f)
        centred = y - y.mean(0)
        left = x.T @ x / 90 + l2 * torch.eye(7, dtype=torch.float64)
        expected = torch.linalg.solve(left, x.T @ centred / 90).T
        np.testing.assert_allclose(w.numpy(), expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(b.numpy(), y.mean(0).numpy(), atol=1e-6)


@pytest.mark.parametrize("keep", [0, 2**20])
def test_chunk_size_and_caching_do_not_change_the_solution(
    monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    f, y = features(), three()
    rows = np.arange(89, -1, -2)
    target = y[torch.from_numpy(rows.copy())]
    (at_once,) = classify(Design(f, rows, CPU), target, None, 3, (1e-2,))
    monkeypatch.setattr(linear, "CHUNK", 7 * 11)
    monkeypatch.setattr(linear, "KEEP", keep)
    (parts,) = classify(Design(f, rows, CPU), target, None, 3, (1e-2,))
    torch.testing.assert_close(
        standardised_map(at_once, f), standardised_map(parts, f), atol=1e-6, rtol=0
    )


def test_a_constant_feature_has_weight_0() -> None:
    f, y = features(), three()
    (solved,) = classify(Design(f, np.arange(90), CPU), y, None, 3, (1e-3,))
    assert (solved.weight[:, -1] == 0).all()
    assert torch.isfinite(solved.bias).all()


def clusters(classes: int = 6, each: int = 20) -> tuple[np.ndarray, torch.Tensor]:
    """Classes that differ along two weak directions, with two strong uninformative ones."""
    rng = np.random.default_rng(4)
    y = np.repeat(np.arange(classes), each)
    angle = 2 * np.pi * y / classes
    quiet = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * rng.normal(size=(len(y), 2))
    mixed = np.concatenate([quiet, 10 * rng.normal(size=(len(y), 2))], 1)
    mixed = np.concatenate([mixed, 0.1 * rng.normal(size=(len(y), 4))], 1)
    turned = mixed @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 20
    return turned.astype(np.float32), torch.from_numpy(y)


def recall(out: torch.Tensor, y: torch.Tensor) -> float:
    near = F.normalize(out, dim=1) @ F.normalize(out, dim=1).T
    return float((y[near.fill_diagonal_(-2).argmax(1)] == y).double().mean())


@pytest.mark.parametrize("rows", [512, 48])
def test_contrast_separates_classes(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(linear, "ROWS", rows)
    f, y = clusters()
    x = Design(f, np.arange(len(f)), CPU, centre=False)
    strong, weak = contrast(x, y, 16, (1e6, 1e-4), seed=0)
    wide = torch.from_numpy(f.astype(np.float64))
    before, after = recall(wide @ strong.weight.T, y), recall(wide @ weak.weight.T, y)
    assert before < 0.6 and after > 0.9
    assert (weak.bias == 0).all()


def test_contrast_depends_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "ROWS", 24)
    f, y = clusters()
    x = Design(f, np.arange(len(f)), CPU, centre=False)
    one, again, other = (next(contrast(x, y, 4, (1e-3,), seed)).weight for seed in (0, 0, 1))
    assert one.equal(again) and not one.equal(other)


def test_contrast_without_positives_returns_principal_components() -> None:
    f, _ = clusters()
    x = Design(f, np.arange(20), CPU, centre=False)
    (solved,) = contrast(x, torch.arange(20), 3, (1e-3,), seed=0)
    basis, sizes = directions(x)
    ours = solved.weight / x.scale
    torch.testing.assert_close(ours * sizes[1:].sum().sqrt(), basis[1:4])


def test_directions_are_the_mean_and_then_principal_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    f, _ = clusters()
    x = Design(f, np.arange(len(f)), CPU, centre=False)
    assert len(directions(x)[0]) == 1 + 6  # one is too small
    monkeypatch.setattr(linear, "SMALL", 1e-9)
    basis, sizes = directions(x)
    assert basis.shape == (8, 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))
    rows = torch.cat([rows for _, rows in x.chunks()])
    torch.testing.assert_close(basis[0], F.normalize(rows.mean(0), dim=0))
    along = rows @ basis.T
    second = along.T @ along / len(rows)
    torch.testing.assert_close(second.diagonal(), sizes)
    torch.testing.assert_close(second[1:, 1:], torch.diag(sizes[1:]), atol=1e-8, rtol=0)
    assert (sizes[1:].diff() <= 0).all()


def test_identical_features_have_no_directions() -> None:
    x = Design(np.full((6, 4), 2.0, np.float32), np.arange(6), CPU, centre=False)
    (solved,) = contrast(x, torch.tensor([0, 0, 1, 1, 2, 2]), 3, (1.0,), seed=0)
    assert (solved.weight == 0).all() and solved.weight.shape == (3, 4)
