"""`shared-batch`: shared scale and bias, and the statistics of each domain's batch."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.norms._base import Norm, drop_statistics, is_batch_norm, map_too_small
from onetrunk.nn.switch import Switch


class SharedBatchBank(Bank):
    """A batch norm without running statistics.

    No domain owns a slot, but a mixed batch is cut into segments: each has its own statistics.
    """

    origin: Any

    def __init__(self, layer: nn.Module, path: str, switch: Switch) -> None:
        super().__init__(path, switch)
        self.origin = drop_statistics(layer)

    def make_slot(self) -> None:
        """Return None: no domain owns anything."""

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """Normalize by the statistics of this batch."""
        if x[0, 0].numel() == 1:
            raise map_too_small(self.path, "shared-batch", x)
        y: Tensor = self.origin(x)
        return y

    def resolve(self, name: str) -> nn.Module:
        """Return a copy of the layer, without statistics."""
        plain: nn.Module = copy.deepcopy(self.origin)
        return plain


class SharedBatch(Norm):
    """No statistics are kept; prediction needs several images of a domain at once."""

    needs_running_statistics = True
    batch_statistics = True
    min_images = 8
    exports = False

    def replace(self, layer: nn.Module, path: str, switch: Switch) -> nn.Module:
        """Replace batch norms; other norms stay."""
        return SharedBatchBank(layer, path, switch) if is_batch_norm(layer) else layer


NORM = SharedBatch
