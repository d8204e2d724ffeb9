"""Aligners: the small maps from a student's features to a teacher's, thrown away at the end.

`linear`: A·f, a 1×1 convolution on maps, without bias (Li, Liu & Bilen 2022). `hidden`: one hidden
layer of the wider one's width, A₂·ReLU(A₁·f + b). The smaller an aligner, the more of the teacher
the student itself must learn.
"""

from __future__ import annotations

from torch import Tensor, nn

KINDS = ("linear", "hidden")


class Aligner(nn.Module):
    """(B, inside) to (B, out), or maps (B, inside, h, w) to (B, out, h, w)."""

    def __init__(self, inside: int, out: int, kind: str = "linear") -> None:
        super().__init__()
        hidden = max(inside, out)
        layers: list[nn.Module] = (
            [nn.Linear(inside, out, bias=False)]
            if kind == "linear"
            else [nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=False)]
        )
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Each row, or each pixel of a map, by itself."""
        if features.ndim == 2:
            mapped: Tensor = self.layers(features)
            return mapped
        mapped = self.layers(features.movedim(1, -1))
        return mapped.movedim(-1, 1)
