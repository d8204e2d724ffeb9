"""The weightings that TorchJD has (Quinton & Rey 2024, arXiv:2406.16232; torchjd.org), by our names.

What works on G alone is asked for weights; what needs J itself, for the gradient. Solvers run on
the CPU in float64, on G brought to a mean squared length of 1: no answer below depends on that, and
none of their small constants then mistakes short gradients for none.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from onetrunk.data.seeded import seed_of
from onetrunk.errors import Failed, Missing
from onetrunk.train.device import start_generators
from onetrunk.train.weighting.method import Method
from onetrunk.train.weighting.projector import project
from onetrunk.train.weighting.protocol import Needs, Setup
from onetrunk.train.weighting.settings import Nothing, real, take, whole


@dataclass(frozen=True)
class CAGrad:
    c: float = real(0.5)  # radius of the ball round the mean gradient, in lengths of it


@dataclass(frozen=True)
class Mgda:
    epsilon: float = real(1e-3, open=True)  # stops where a step is shorter
    max_iters: int = whole(100, 1)


@dataclass(frozen=True)
class FairGrad:
    alpha: float = real(1.0, open=True)  # 1: proportional, the bargain of Nash-MTL


@dataclass(frozen=True)
class Known:
    """A weighting of TorchJD."""

    thing: str  # in torchjd.aggregation
    settings: type = Nothing
    adds: bool = False  # Σ over the units; the others are means over them
    package: str = ""  # that it needs beside TorchJD


GRAM = {
    "aligned-mtl": Known("AlignedMTLWeighting"),
    "cagrad": Known("CAGradWeighting", CAGrad, package="cvxpy"),
    "dualproj": Known("DualProjWeighting", package="scipy"),
    "fairgrad": Known("FairGradWeighting", FairGrad, package="scipy"),
    "imtl-g": Known("IMTLGWeighting"),
    "mgda": Known("MGDAWeighting", Mgda),
    "pcgrad": Known("PCGradWeighting", adds=True),
    "upgrad": Known("UPGradWeighting", package="scipy"),
}
JACOBIAN = {"config": Known("ConFIG", adds=True), "graddrop": Known("GradDrop", adds=True)}
NOT = {  # what TorchJD has besides, and why it is not here
    "constant": "that is fixed",
    "cr-mogm": "it smooths another method's weights",
    "excess-mtl": "its state cannot be taken up again from outside",
    "gradvac": "its state cannot be taken up again from outside",
    "krum": "it guards against forged gradients and drops units",
    "mean": "that is equal",
    "modo": "it needs two independent batches of each unit in a step",
    "nash-mtl": "its solver ecos is under the GPL; fairgrad with alpha = 1 is the same bargain",
    "pcd": "one unit is its primary, the others serve it",
    "random": "that is rlw",
    "sdmgrad": "it needs two independent batches of each unit in a step",
    "sum": "that is equal",
    "trimmed-mean": "it guards against forged gradients and drops the largest of each number",
}


def make(name: str, setup: Setup, settings: Mapping[str, object]) -> Method:
    """One of GRAM or JACOBIAN."""
    known = (GRAM | JACOBIAN)[name]
    chosen = asdict(take(known.settings, settings, name))
    module = _import("torchjd.aggregation", name)
    if known.package:
        _import(known.package, name)
    if name in ("upgrad", "dualproj"):
        chosen["projector"] = _projector(_import("torchjd.linalg", name))
    thing = getattr(module, known.thing)(**chosen)
    return ByGram(setup, name, thing) if name in GRAM else ByJacobian(setup, name, thing)


class ByGram(Method):
    """Weights by one of TorchJD's Weightings.

    Random orders (pcgrad) depend on seed and step alone, over the units in the order of their
    names.
    """

    needs: ClassVar[Needs] = "gram"

    def __init__(self, setup: Setup, name: str, weighting: Any) -> None:
        super().__init__(setup)
        self.name, self.weighting = name, weighting

    @torch.no_grad()
    def weigh(self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        order = sorted(range(len(present)), key=lambda place: self.setup.units[present[place]])
        G = gram_KK.cpu().double()[order][:, order]
        length = G.diagonal().mean()
        if len(present) == 1 or not length > 0:
            return torch.ones_like(gram_KK[0])
        with drawn_from(seed_of(self.setup.seed, self.name, self.step), torch.device("cpu")):
            found = self.weighting(G / length)
        if not bool(found.isfinite().all()):
            raise Failed(
                f"the weighting {self.name} found no finite weights in step {self.step + 1}; try: "
                "another weighting, or a lower train.lr"
            )
        weights = torch.empty_like(found)
        weights[order] = found
        if self.name == "fairgrad":  # the paper's length has no scale: its direction at a mean of 1
            weights = weights / weights.sum()
        if self.name == "cagrad":  # as the authors do: (1 + c) times where nothing conflicts
            weights = weights / (1 + self.weighting.c)
        if not GRAM[self.name].adds:
            weights = weights * len(present)
        return weights.to(gram_KK)


class ByJacobian(Method):
    """The gradient by one of TorchJD's Aggregators, whose sums become means."""

    needs: ClassVar[Needs] = "jacobian"

    def __init__(self, setup: Setup, name: str, aggregator: Any) -> None:
        super().__init__(setup)
        self.name, self.aggregator = name, aggregator

    @torch.no_grad()
    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        if len(present) == 1:
            return jacobian_KP[0]
        with drawn_from(seed_of(self.setup.seed, self.name, self.step), jacobian_KP.device):
            combined: Tensor = self.aggregator(jacobian_KP)
        return combined / len(present)


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators start from this seed, and then go on as if nothing had been drawn."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        start_generators(seed, device)
        yield


def _import(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Missing(module.partition(".")[0], "torchjd", f"the weighting {name}") from None


def _projector(linalg: ModuleType) -> object:
    """Ours, as what TorchJD calls a projector."""

    class Projector(linalg.DualConeProjector):  # type: ignore[misc, name-defined]
        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            return torch.from_numpy(project(U.double().numpy(), G.double().numpy())).to(U)

    return Projector()
