"""`linear`: A·f, a 1×1 convolution on maps, without bias (Li, Liu & Bilen 2022)."""

from __future__ import annotations

from torch import nn

from onetrunk.train.distill.aligners._pointwise import Pointwise


class Linear(Pointwise):
    """One linear layer without bias."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__(nn.Linear(student, teacher, bias=False))


ALIGNER = Linear
