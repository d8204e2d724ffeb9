"""A stage that each domain owns (sharing = "partial"): a bank whose slots are whole stages."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from onetrunk.nn.bank import Bank
from onetrunk.nn.switch import Switch


class OwnStage(Bank):
    """A module of the trunk, once per domain; a new one starts as the trunk's was."""

    def __init__(self, stage: nn.Module, where: str, switch: Switch) -> None:
        super().__init__(where, switch)
        self.origin = stage.requires_grad_(False)

    def make_slot(self) -> nn.Module:
        """A copy of the stage."""
        return copy.deepcopy(self.origin).requires_grad_(True).train(self.training)

    def run(self, x: Tensor, slot: nn.Module | None) -> Tensor:
        """The domain's own stage."""
        y: Tensor = self.slot(slot)(x)
        return y

    def resolve(self, name: str) -> nn.Module:
        """A copy of the domain's own."""
        return copy.deepcopy(self.slots[name])
