"""Adam (Kingma & Ba 2015) on one number a unit; a unit that is not in a step stands still."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


def lwf(value_N: Tensor, name: str) -> dict[str, Tensor]:
    """What the descent of this vector keeps, the vector itself included."""
    parts = {f"{name}/{part}": torch.zeros_like(value_N) for part in ("mean", "square", "count")}
    return {name: value_N, **parts}


@torch.no_grad()
def descend(kept: dict[str, Tensor], name: str, where_K: Tensor, grad_K: Tensor, lr: float) -> None:
    """θ ← θ − lr·m̂/(√v̂ + ε) for the units of the step."""
    mean, square, count = (kept[f"{name}/{part}"] for part in ("mean", "square", "count"))
    grad_K = grad_K.to(mean)
    count[where_K] += 1
    mean[where_K] = torch.lerp(grad_K, mean[where_K], FIRST)
    square[where_K] = torch.lerp(grad_K.square(), square[where_K], SECOND)
    m = mean[where_K] / (1 - FIRST ** count[where_K])
    v = square[where_K] / (1 - SECOND ** count[where_K])
    kept[name][where_K] -= lr * m / (v.sqrt() + EPSILON)
