"""What every feature loss has to do, a third party's too.

    from onetrunk.testing import conform_feature_loss
    conform_feature_loss(thing)  # distill.features = "mypackage.losses:thing"

raises AssertionError with what was wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
SHAPES = ((16, 5), (8, 3), (2, 5), (1, 4), (8, 5, 3, 4), (1, 4, 2, 2))


def conform_feature_loss(loss: Loss, least: bool = True) -> None:
    """Every check; `least`: it says of itself that equal features have its least value."""
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            is_a_finite_scalar(loss, shape, dtype)
        leaves_its_inputs(loss, shape)
        knows_no_order(loss, shape)
        if least:
            is_least_where_equal(loss, shape)
    has_a_gradient(loss)


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Features."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def is_a_finite_scalar(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Finite value and gradient: of noise, of equal features, of rows that are all one, of zeros,
    of very small and of large numbers."""
    a, t = noise(shape, 0, dtype), noise(shape, 1, dtype)
    cases = {
        "noise": (a, t),
        "equal": (t, t),
        "constant": (a[:1].expand(shape), t),
        "a constant teacher": (a, t[:1].expand(shape)),
        "zeros": (torch.zeros_like(a), t),
        "a teacher of zeros": (a, torch.zeros_like(t)),
        "tiny": (1e-6 * a, 1e-6 * t),
        "large": (1e4 * a, 1e4 * t),
    }
    for what, (student, teacher) in cases.items():
        x = student.clone().requires_grad_(True)
        value = loss(x, teacher.clone())
        where = f"{what}, {tuple(shape)}, {dtype}"
        assert value.shape == (), f"expected a scalar, came {tuple(value.shape)} ({where})"
        assert torch.isfinite(value), f"its value is {float(value.detach())} ({where})"
        assert value.requires_grad, f"no gradient reaches the student ({where})"
        (grad,) = torch.autograd.grad(value, x)
        assert torch.isfinite(grad).all(), f"its gradient is not finite ({where})"


def leaves_its_inputs(loss: Loss, shape: tuple[int, ...]) -> None:
    """It changes neither the student's features nor the teacher's."""
    a, t = noise(shape, 0), noise(shape, 1)
    loss(a, t)
    assert a.equal(noise(shape, 0)), "it changed the student's features"
    assert t.equal(noise(shape, 1)), "it changed the teacher's features"


def knows_no_order(loss: Loss, shape: tuple[int, ...]) -> None:
    """The images of a batch in another order have the same loss."""
    a, t = noise(shape, 0), noise(shape, 1)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(2))
    one, other = float(loss(a, t)), float(loss(a[order], t[order]))
    assert abs(one - other) <= 1e-9 * max(1.0, abs(one)), f"{one} becomes {other} in another order"


def is_least_where_equal(loss: Loss, shape: tuple[int, ...]) -> None:
    """No other features are nearer to a teacher's than these themselves."""
    t = noise(shape, 1)
    same = float(loss(t, t))
    for seed in range(2, 8):
        for far in (1e-3, 1.0):
            other = float(loss(t + far * noise(shape, seed), t))
            assert same <= other + 1e-9, f"equal features have {same}, others {other}"


def has_a_gradient(loss: Loss) -> None:
    """Where features differ there is one. (What is detached in a loss, as cka's σ, is no part of
    it, so differences of values are no reference here.)"""
    for shape in ((16, 5), (8, 5, 3, 4)):
        a, t = noise(shape, 0).requires_grad_(True), noise(shape, 1)
        (grad,) = torch.autograd.grad(loss(a, t), a)
        assert grad.any(), f"its gradient is 0 of noise, {shape}"
