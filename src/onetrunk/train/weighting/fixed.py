"""Fixed weights, given by the user.

The settings are the weights, by "domain/task", or by domain for all of its tasks; a unit that is
not named has the weight 1. They are divided by their mean, so that only their ratios matter and the
size of the steps stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.train.weighting._base import Setup, Weighting

WHERE = "train.weighting_settings"


class Fixed(Weighting):
    """w_u = N·a_u / Σ a."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, {})
        domains = dict.fromkeys(unit.partition("/")[0] for unit in setup.units)
        for name, value in settings.items():
            if name not in setup.units and name not in domains:
                raise BadInput(
                    f"{WHERE}: unknown unit or domain", got=name, available=(*setup.units, *domains)
                )
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value < float("inf")):  # type: ignore[operator]
                raise BadInput(f"{WHERE}.{name}: expected a number, 0 or above", got=value)
        given = [
            settings.get(unit, settings.get(unit.partition("/")[0], 1.0)) for unit in setup.units
        ]
        weights = torch.tensor(given, dtype=torch.float64)
        if not weights.any():
            raise BadInput(f"{WHERE}: expected a weight above 0 for at least one unit", got="all 0")
        self.fixed = (weights / weights.mean()).to(setup.device, torch.float32)

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return self.fixed[self.setup.index(present)]


WEIGHTING = Fixed
