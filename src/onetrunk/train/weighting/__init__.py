"""Loss weightings by name: how the losses of a step's units become one gradient.

Each file of this package without a leading underscore defines one method, a subclass of `Weighting`
that it binds to `WEIGHTING`. TorchJD's methods are the table in `_torchjd.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch

from onetrunk.errors import BadInput
from onetrunk.registry import Registry
from onetrunk.train.weighting._base import Setup, Weighting
from onetrunk.train.weighting._torchjd import NOT_OFFERED, TORCHJD

__all__ = ["WEIGHTINGS", "Setup", "Weighting", "make_weighting"]

Factory = Callable[[Setup, Mapping[str, object]], Weighting]  # usually the class itself


class Weightings(Registry[Factory]):
    """The methods of this package, TorchJD's, and user-defined ones."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All built-in names; TorchJD's also if it is not installed."""
        return tuple(sorted((*super().names, *TORCHJD)))

    def load(self, name: str) -> Factory:
        """Return the class of a built-in method, or a user-defined factory."""
        if name in TORCHJD:
            return TORCHJD[name]
        if name in NOT_OFFERED:
            raise BadInput(
                f"weighting: TorchJD's {name} is not offered: {NOT_OFFERED[name]}",
                got=name,
                available=self.names,
            )
        return super().load(name)


WEIGHTINGS = Weightings("onetrunk.train.weighting", "weighting")


def make_weighting(
    name: str,
    units: Sequence[str],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    settings: Mapping[str, object] | None = None,
    epoch: int = 100,
) -> Weighting:
    """Create a weighting.

    Args:
        name: A name in WEIGHTINGS, or "package.module:thing", called as thing(setup, settings).
        units: The units of the run, as "domain/task".
        seed: The seed of random draws.
        device: Where the losses are.
        settings: `train.weighting_settings`.
        epoch: Steps in an epoch.
    """
    if not units or len(set(units)) < len(units):
        raise BadInput(
            "a weighting needs at least one unit, and each of them once", got=list(units)
        )
    setup = Setup(tuple(units), seed, device or torch.device("cpu"), epoch)
    weighting = WEIGHTINGS.load(name)(setup, settings or {})
    if not isinstance(weighting, Weighting):
        raise BadInput(
            f"weighting {name}: expected a subclass of onetrunk.train.weighting.Weighting",
            got=type(weighting).__name__,
        )
    if weighting.needs_gradients and len(units) == 1:
        raise BadInput(
            f"the weighting {name} needs the gradients of at least two units",
            got=units[0],
            try_="weighting = 'equal'",
        )
    return weighting
