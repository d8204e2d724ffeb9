"""Methods as users write them: a norm, an adapter and weightings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.switch import Switch
from onetrunk.train.weighting import Setup, Weighting


class Scale(Bank):
    """The shared layer, and one more scale per domain."""

    def __init__(self, layer: nn.BatchNorm2d, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.origin = layer

    def make_slot(self) -> nn.Module:
        slot = nn.Module()
        slot.scale = nn.Parameter(torch.ones(self.origin.num_features))
        return slot

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        scale: Tensor = self.required(slot).scale
        y: Tensor = self.origin(x)
        return y * scale.view(1, -1, 1, 1)

    def resolve(self, name: str) -> nn.Module:
        scale = self.slots[name].get_parameter("scale")
        return nn.Sequential(nn.Identity(), Fixed(self.origin, scale))


class Fixed(nn.Module):
    """A layer, and a scale of its output."""

    def __init__(self, layer: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y * self.scale.view(1, -1, 1, 1)


def norm(layer: nn.BatchNorm2d, path: str, switch: Switch) -> Scale:
    return Scale(layer, path, switch)


class Shift(nn.Module):
    """y + b, with one number per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y + self.b.view(1, -1, 1, 1)


def adapter(layer: nn.Module) -> Shift | None:
    return Shift(layer.out_channels) if isinstance(layer, nn.Conv2d) else None


number = 3


class Inverse(Weighting):
    """Weights every unit by the inverse of its loss."""

    needs_losses = True

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.count = torch.zeros(())

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        assert losses_K is not None
        return len(present) * (1 / losses_K) / (1 / losses_K).sum()

    def update(self, losses_K: Tensor, present: Sequence[int]) -> None:
        self.count += 1

    def state(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.count.copy_(tensors["count"])


class NotSaved(Inverse):
    """Weights that depend on a count that is in no checkpoint."""

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        assert losses_K is not None
        return len(present) * torch.softmax(float(self.count) * losses_K, 0)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class ByPosition(Inverse):
    """Weights that depend on the position in the list of units."""

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return len(present) * torch.softmax(torch.arange(len(present)).flip(0).double(), 0)


class DrawsGlobally(Inverse):
    """A weighting that draws from torch's global generator."""

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        torch.rand(1)
        return super().weights(losses_K, present)


class SumsLosses(Inverse):
    """Weights whose mean is not 1."""

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return torch.full((len(present),), float(len(present) + 1))
