"""Feature losses and prediction losses against loops over rows, in float64."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.testing.feature_losses import noise
from onetrunk.train.distill.feature_losses.cka import cka
from onetrunk.train.distill.feature_losses.cosine import cosine
from onetrunk.train.distill.feature_losses.l2 import l2
from onetrunk.train.distill.matching import to_common_shape
from onetrunk.train.distill.prediction_losses import make_prediction_loss, sigmoid_kl, softmax_kl
from tests.helpers.fakes import dense_source
from tests.helpers.worlds import worlds

MAPS, ROWS = (3, 4, 2, 5), (9, 4)


def each(features: Tensor) -> list[list[float]]:
    """Rows as lists; a row is an image, or a pixel of a map."""
    if features.ndim == 2:
        return features.tolist()
    found = []
    for image in features:
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                found.append([float(c) for c in image[:, y, x]])
    return found


def length(v: list[float]) -> float:
    return math.sqrt(sum(c * c for c in v))


def slow_l2(a: Tensor, t: Tensor) -> float:
    found = []
    for s, g in zip(each(a), each(t), strict=True):
        p, q = length(s), length(g)
        found.append(sum((c / p - d / q) ** 2 for c, d in zip(s, g, strict=True)))
    return statistics.fmean(found)


def slow_cosine(a: Tensor, t: Tensor) -> float:
    direction, size = [], []
    for s, g in zip(each(a), each(t), strict=True):
        dot = sum(c * d for c, d in zip(s, g, strict=True))
        direction.append(1 - dot / (length(s) * length(g)))
        for c, d in zip(s, g, strict=True):
            off = abs(c - d)
            size.append(off * off / 2 if off < 1 else off - 0.5)
    return 0.9 * statistics.fmean(direction) + 0.1 * statistics.fmean(size)


def slow_kernel(features: Tensor) -> list[list[float]]:
    """H K H, computed entry by entry."""
    images = features if features.ndim == 2 else features.mean((2, 3))
    unit = [[c / length(v) for c in v] for v in images.tolist()]
    n = len(unit)
    d2 = [[sum((c - d) ** 2 for c, d in zip(u, v, strict=True)) for v in unit] for u in unit]
    apart = sorted(d2[i][j] for i in range(n) for j in range(n) if i != j)
    sigma2 = max(apart[(len(apart) + 1) // 2 - 1], 1e-6)
    k = [[math.exp(-d / (2 * sigma2)) for d in row] for row in d2]
    h = [[(i == j) - 1 / n for j in range(n)] for i in range(n)]
    return times(times(h, k), h)


def times(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(x * b[k][j] for k, x in enumerate(row)) for j in range(len(b))] for row in a]


def slow_cka(a: Tensor, t: Tensor) -> float:
    k, m = slow_kernel(a), slow_kernel(t)

    def hsic(one: list[list[float]], other: list[list[float]]) -> float:
        product = times(one, other)
        return sum(product[i][i] for i in range(len(product)))

    return 1 - hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("shape", [ROWS, MAPS, (8, 3), (16, 6)], ids=str)
def test_feature_losses_match_loops(shape: tuple[int, ...]) -> None:
    a, t = noise(shape, 0), noise(shape, 1) * 3 + 0.5
    for fast, slow in ((l2, slow_l2), (cosine, slow_cosine), (cka, slow_cka)):
        assert float(fast(a, t)) == pytest.approx(slow(a, t), rel=1e-12), fast.__name__


def test_pinned() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    # the angles between rows: 0°, 90°, 0°, 180°
    assert float(l2(a, t)) == pytest.approx((0 + 2 + 0 + 4) / 4)
    distances = [0.5, 0, 0.5, 1.5, 1.5, 1.5, 3.5, 0]  # smooth L1 of each number
    expected = 0.9 * (0 + 1 + 0 + 2) / 4 + 0.1 * sum(distances) / 8
    assert float(cosine(a, t)) == pytest.approx(expected)
    assert float(cka(a, a)) == pytest.approx(0, abs=1e-12)


def rotation(width: int) -> Tensor:
    q, _ = torch.linalg.qr(noise((width, width), 5))
    assert isinstance(q, Tensor)
    return q


def test_invariances() -> None:
    a, t = noise((12, 4), 0), noise((12, 4), 1)
    rows = torch.rand(12, 1, dtype=torch.float64) + 0.5
    assert float(l2(a * rows, t * 3)) == pytest.approx(float(l2(a, t)), rel=1e-12)
    assert float(l2(a @ rotation(4), t @ rotation(4))) == pytest.approx(float(l2(a, t)), rel=1e-12)
    assert float(cka(a @ rotation(4) * 7, t)) == pytest.approx(float(cka(a, t)), rel=1e-12)
    assert float(cka(a, t @ rotation(4) * rows)) == pytest.approx(float(cka(a, t)), rel=1e-12)
    assert 0 <= float(cka(a, noise((12, 9), 1))) <= 1  # of different widths
    assert float(cosine(a @ rotation(4), t)) != pytest.approx(float(cosine(a, t)), rel=1e-3)


def test_different_shapes_are_brought_to_a_common_one() -> None:
    small, large, row = noise((2, 3, 2, 2), 0), noise((2, 3, 4, 6), 1), noise((2, 3), 2)
    a, t = to_common_shape(small, large)
    assert a.shape == t.shape == large.shape and t is large
    a, t = to_common_shape(small, row)
    torch.testing.assert_close(a, small.mean((2, 3)))
    assert t is row
    a, t = to_common_shape(row, large)
    assert a is row and t.shape == (2, 3)


# -- predictions


def slow_kl(s: list[float], t: list[float], temperature: float) -> float:
    def softmax(v: list[float]) -> list[float]:
        top = [math.exp(x / temperature) for x in v]
        return [x / sum(top) for x in top]

    p, q = softmax(t), softmax(s)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_prediction_losses_match_loops(temperature: float) -> None:
    for shape in (ROWS, MAPS):
        s, t = noise(shape, 0), noise(shape, 1)
        expected = [slow_kl(a, b, temperature) for a, b in zip(each(s), each(t), strict=True)]
        assert float(softmax_kl(s, t, temperature)) == pytest.approx(statistics.fmean(expected))
    s, t = noise((5, 3), 0), noise((5, 3), 1)
    pairs = [
        slow_kl([a, 0.0], [b, 0.0], temperature)
        for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True)
    ]
    assert float(sigmoid_kl(s, t, temperature)) == pytest.approx(statistics.fmean(pairs))
    assert float(softmax_kl(s, s, temperature)) == pytest.approx(0, abs=1e-12)
    assert float(sigmoid_kl(s, s, temperature)) == pytest.approx(0, abs=1e-12)


def test_extreme_predictions_stay_finite() -> None:
    s, t = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    for loss in (softmax_kl, sigmoid_kl):
        x = s.clone().requires_grad_(True)
        value = loss(x, t, 1.0)
        assert float(value.detach()) == pytest.approx(400 if loss is softmax_kl else 200)
        assert torch.autograd.grad(value, x)[0].isfinite().all()


def test_other_kinds_use_the_loss_of_their_labels() -> None:
    rooms = Domain("rooms", dense_source(8, 8, 8), size=8)
    by_name = {task.name: task for task in rooms.tasks}
    s, t = noise((2, 1, 4, 4), 0).abs() + 1, noise((2, 1, 4, 4), 1).abs() + 1
    depth = make_prediction_loss(by_name["depth"], rooms, 4.0)
    assert depth is not None
    assert float(depth(s, t)) == pytest.approx(float((s - t).abs().mean()))
    n, m = (torch.nn.functional.normalize(noise((2, 3, 4, 4), i), dim=1) for i in (0, 1))
    normals = make_prediction_loss(by_name["normals"], rooms, 4.0)
    assert normals is not None
    assert float(normals(n, m)) == pytest.approx(float(1 - (n * m).sum(1).mean()))
    segment = make_prediction_loss(by_name["segment"], rooms, 4.0)
    x, y = noise((2, 3, 4, 4), 0), noise((2, 3, 4, 4), 1)
    assert segment is not None
    assert segment(x, y).equal(softmax_kl(x, y, 4.0))
    ants = worlds("ants")[0]
    assert make_prediction_loss(Task("e", "embed"), ants, 4.0) is None
