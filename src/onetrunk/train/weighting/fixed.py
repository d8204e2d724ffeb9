"""Weights that the user gives.

The settings are the weights, by "domain/task" or by domain for all of its tasks; a unit that is not
named counts 1. They are divided by their mean, so that their ratios alone count and the rate of
learning stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from onetrunk.errors import BadInput
from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.protocol import Setup


class Fixed(Method):
    """w_u = N·a_u / Σ a."""

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup)
        domains = {unit.partition("/")[0]: unit for unit in setup.units}
        for name, value in settings.items():
            if name not in setup.units and name not in domains:
                exists = (*setup.units, *domains)
                raise BadInput(
                    "weighting fixed: no such unit or domain", got=name, available=exists
                )
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value < float("inf")):  # type: ignore[operator]
                raise BadInput(
                    f"weighting fixed: the weight of {name} is a number from 0", got=value
                )
        given = [
            settings.get(unit, settings.get(unit.partition("/")[0], 1.0)) for unit in setup.units
        ]
        wanted = torch.tensor(given, dtype=torch.float64)
        if not wanted.any():
            raise BadInput(
                "weighting fixed: at least one unit counts", got="weights that are all 0"
            )
        self.wanted = (wanted / wanted.mean()).to(setup.device, torch.float32)

    def weights(self, losses_K: Tensor | None, present: Sequence[int]) -> Tensor:
        return self.wanted[self.setup.of(present)]
