"""Loss weightings by name: how the losses of a step's units become one gradient (DESIGN: Loss weighting)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

import torch

from onetrunk.errors import BadInput
from onetrunk.train.weighting import from_torchjd
from onetrunk.train.weighting.db_mtl import DbMtl
from onetrunk.train.weighting.dwa import Dwa
from onetrunk.train.weighting.equal import Equal
from onetrunk.train.weighting.famo import Famo
from onetrunk.train.weighting.fixed import Fixed
from onetrunk.train.weighting.gradnorm import GradNorm
from onetrunk.train.weighting.protocol import GRADIENTS, NEEDS, Setup, Weighting
from onetrunk.train.weighting.rlw import Rlw
from onetrunk.train.weighting.stch import Stch
from onetrunk.train.weighting.uncertainty import Uncertainty

Make = Callable[[Setup, Mapping[str, object]], Weighting]

OURS: dict[str, Make] = {
    "db-mtl": DbMtl,
    "dwa": Dwa,
    "equal": Equal,
    "famo": Famo,
    "fixed": Fixed,
    "gradnorm": GradNorm,
    "rlw": Rlw,
    "stch": Stch,
    "uncertainty": Uncertainty,
}


def names() -> tuple[str, ...]:
    """What exists, that of TorchJD whether it is installed or not."""
    return (*OURS, *from_torchjd.GRAM, *from_torchjd.JACOBIAN)


def make_weighting(
    name: str,
    units: Sequence[str],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    settings: Mapping[str, object] | None = None,
    epoch: int = 100,
) -> Weighting:
    """A weighting over these units, "domain/task" each; `epoch`: in steps."""
    if not units or len(set(units)) < len(units):
        raise BadInput(
            "a weighting is over at least one unit, each once", got=", ".join(units) or "none"
        )
    setup = Setup(tuple(units), seed, device or torch.device("cpu"), epoch)
    made = _maker(name)(setup, settings or {})
    if made.needs in GRADIENTS and len(units) == 1:
        raise BadInput(
            f"the weighting {name} needs the gradients of at least two units",
            got=units[0],
            try_="weighting = 'equal'",
        )
    return made


def _maker(name: str) -> Make:
    if name in OURS:
        return OURS[name]
    if name in from_torchjd.GRAM or name in from_torchjd.JACOBIAN:
        return lambda setup, settings: from_torchjd.make(name, setup, settings)
    if ":" in name:
        return _outside(name)
    what = "unknown weighting"
    if name in from_torchjd.NOT:
        what = f"TorchJD's {name} is not offered: {from_torchjd.NOT[name]}"
    raise BadInput(what, got=name, available=names(), try_="or package.module:thing")


def _outside(name: str) -> Make:
    """The thing that "package.module:thing" names; called as thing(setup, settings)."""
    module, _, thing = name.partition(":")
    try:
        make: Make = getattr(importlib.import_module(module), thing)
    except ImportError as error:
        raise BadInput(
            f"weighting {name!r}: cannot import {module}: {error}", available=names()
        ) from None
    except AttributeError:
        raise BadInput(
            f"weighting {name!r}: {module} has no {thing!r}", available=names()
        ) from None

    def checked(setup: Setup, settings: Mapping[str, object]) -> Weighting:
        made = make(setup, settings)
        if getattr(made, "needs", None) not in NEEDS:
            raise BadInput(f"weighting {name!r} does not say what it needs", available=NEEDS)
        return made

    return checked
