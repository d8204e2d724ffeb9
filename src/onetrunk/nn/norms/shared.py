"""`shared`: scale, bias and running statistics are shared by all domains."""

from __future__ import annotations

from torch import nn

from onetrunk.nn.norms._base import Norm
from onetrunk.nn.switch import Switch


class Shared(Norm):
    """The trunk's own norm layers stay."""

    replaces_layers = False
    starts_unchanged = True

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Return the layer itself."""
        return layer


NORM = Shared
