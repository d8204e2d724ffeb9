"""Conformance of feature losses of distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
SHAPES = ((16, 5), (8, 3), (2, 5), (1, 4), (8, 5, 3, 4), (1, 4, 2, 2))


def check_feature_loss(loss: Loss, least: bool = True) -> None:
    """Check a feature loss.

    Args:
        loss: Called as `loss(student, teacher)` with rows (B, C) or maps (B, C, h, w).
        least: Whether equal features must have the smallest value.
    """
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            check_finite(loss, shape, dtype)
        check_inputs_unchanged(loss, shape)
        check_order(loss, shape)
        if least:
            check_minimum(loss, shape)
    check_gradient(loss)


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random features."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def check_finite(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The value is a finite scalar with a finite gradient, for ordinary and degenerate features."""
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
    for case, (student, teacher) in cases.items():
        x = student.clone().requires_grad_(True)
        value = loss(x, teacher.clone())
        where = f"{case}, {tuple(shape)}, {dtype}"
        assert value.shape == (), f"expected a scalar; got: {tuple(value.shape)} ({where})"
        assert torch.isfinite(value), f"its value is {float(value.detach())} ({where})"
        assert value.requires_grad, f"no gradient reaches the student ({where})"
        (grad,) = torch.autograd.grad(value, x)
        assert torch.isfinite(grad).all(), f"its gradient is not finite ({where})"


def check_inputs_unchanged(loss: Loss, shape: tuple[int, ...]) -> None:
    """The loss changes neither the student's features nor the teacher's."""
    a, t = noise(shape, 0), noise(shape, 1)
    loss(a, t)
    assert a.equal(noise(shape, 0)), "it changed the student's features"
    assert t.equal(noise(shape, 1)), "it changed the teacher's features"


def check_order(loss: Loss, shape: tuple[int, ...]) -> None:
    """The order of the images does not matter."""
    a, t = noise(shape, 0), noise(shape, 1)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(2))
    one, other = float(loss(a, t)), float(loss(a[order], t[order]))
    assert abs(one - other) <= 1e-9 * max(1.0, abs(one)), f"{one} becomes {other} in another order"


def check_minimum(loss: Loss, shape: tuple[int, ...]) -> None:
    """Features equal to the teacher's have the smallest loss."""
    t = noise(shape, 1)
    same = float(loss(t, t))
    for seed in range(2, 8):
        for far in (1e-3, 1.0):
            other = float(loss(t + far * noise(shape, seed), t))
            assert same <= other + 1e-9, f"equal features have a loss of {same}, others of {other}"


def check_gradient(loss: Loss) -> None:
    """Features that differ have a gradient.

    Its value is not compared with finite differences, because a loss may detach parts, as cka
    does σ.
    """
    for shape in ((16, 5), (8, 5, 3, 4)):
        a, t = noise(shape, 0).requires_grad_(True), noise(shape, 1)
        (grad,) = torch.autograd.grad(loss(a, t), a)
        assert grad.any(), f"its gradient is 0 for noise, {shape}"
