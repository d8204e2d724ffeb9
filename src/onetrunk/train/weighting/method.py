"""What the weightings of this package have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from onetrunk.train.weighting.protocol import Needs, Setup

TINY = 1e-8  # below this a loss counts as this: it is divided by, and its logarithm taken


class Method:
    """A count of steps, and tensors that a checkpoint keeps."""

    needs: ClassVar[Needs] = "nothing"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.kept = {"step": torch.zeros((), dtype=torch.long)}

    def each(self, value: float = 0.0) -> Tensor:
        """One number for each of the run's units."""
        return torch.full((len(self.setup.units),), value, device=self.setup.device)

    def known(self, losses_K: Tensor | None) -> Tensor:
        """The losses, where and as the numbers here are; above zero."""
        if losses_K is None:
            raise RuntimeError(f"{type(self).__name__} needs the losses of the step")
        return losses_K.detach().to(self.setup.device, torch.float32).clamp_min(TINY)

    @property
    def step(self) -> int:
        """Steps that are done."""
        return int(self.kept["step"])

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} needs {self.needs}")

    def weigh(self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} needs {self.needs}")

    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} needs {self.needs}")

    def saw(self, losses_K: Tensor, present: Sequence[int]) -> None:
        self.kept["step"] += 1

    def saw_after(self, losses_K: Tensor, present: Sequence[int]) -> None:
        return

    def state(self) -> dict[str, Tensor]:
        return dict(self.kept)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.kept.items():
            tensor.copy_(tensors[name])
