"""Methods as users write them: a norm, an adapter and weightings."""

import torch
from torch import nn

from onetrunk.nn.bank import Bank
from onetrunk.train.weighting import Weighting


class Scale(Bank):
    """The shared layer, and one more scale per domain."""

    def __init__(self, layer, path, switch):
        super().__init__(path, switch)
        self.origin = layer

    def make_slot(self):
        slot = nn.Module()
        slot.scale = nn.Parameter(torch.ones(self.origin.num_features))
        return slot

    def run(self, x, slot):
        return self.origin(x) * slot.scale.view(1, -1, 1, 1)

    def resolve(self, name):
        return nn.Sequential(nn.Identity(), Fixed(self.origin, self.slots[name].scale))


class Fixed(nn.Module):
    def __init__(self, layer, scale):
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(scale.detach().clone())

    def forward(self, x):
        return self.layer(x) * self.scale.view(1, -1, 1, 1)


def norm(layer, path, switch):
    return Scale(layer, path, switch)


class Shift(nn.Module):
    """y + b, with one number per channel."""

    def __init__(self, channels):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x, y):
        return y + self.b.view(1, -1, 1, 1)


def adapter(layer):
    return Shift(layer.out_channels) if isinstance(layer, nn.Conv2d) else None


number = 3


class Inverse(Weighting):
    """A weighting: every unit by the inverse of its loss."""

    needs_losses = True

    def __init__(self, setup, settings):
        super().__init__(setup, settings)
        self.count = torch.zeros(())

    def weights(self, losses, present):
        return len(present) * (1 / losses) / (1 / losses).sum()

    def update(self, losses, present):
        self.count += 1

    def state(self):
        return {"count": self.count}

    def restore(self, tensors):
        self.count.copy_(tensors["count"])


class Forgets(Inverse):
    """Its weights depend on a count that no checkpoint holds."""

    def weights(self, losses, present):
        return len(present) * torch.softmax(float(self.count) * losses, 0)

    def state(self):
        return {}

    def restore(self, tensors):
        pass


class ByPlace(Inverse):
    """The first that is listed counts most."""

    def weights(self, losses, present):
        return len(present) * torch.softmax(torch.arange(len(present)).flip(0).double(), 0)


class Draws(Inverse):
    def weights(self, losses, present):
        torch.rand(1)
        return super().weights(losses, present)


class Heavy(Inverse):
    """Sums where it should average."""

    def weights(self, losses, present):
        return torch.full((len(present),), float(len(present) + 1))
