"""TorchJD's weightings (Quinton & Rey 2024, arXiv:2406.16232; torchjd.org), under onetrunk's names.

Methods that need only G = J·Jᵀ return weights; methods that need J itself return the gradient.
Solvers run on the CPU in float64, on G scaled to a mean squared length of 1: no result depends on
that scale, and without it their small constants would treat short gradients as zero.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from onetrunk.data.seeded import seed_of
from onetrunk.errors import Failed, Missing
from onetrunk.settings import Settings
from onetrunk.train.device import start_generators
from onetrunk.train.weighting._base import Setup, Weighting

REGULARIZATION = 1e-4  # of the gradients' total squared length, so that G has an inverse; TorchJD's


class TorchJD(Weighting):
    """A method of `torchjd.aggregation`."""

    name: ClassVar[str]  # onetrunk's name; random draws depend on it
    class_name: ClassVar[str]  # in torchjd.aggregation
    requires: ClassVar[str] = ""  # a package that it needs besides TorchJD
    sums: ClassVar[bool] = False  # whether the method adds the units; others average them

    def __init__(self, setup: Setup, settings: Mapping[str, object]) -> None:
        super().__init__(setup, settings)
        self.method: Any = getattr(self.load("torchjd.aggregation"), self.class_name)
        if self.requires:
            self.load(self.requires)
        self.method = self.method(**self.settings.model_dump(), **self.arguments())

    def load(self, module: str) -> ModuleType:
        """Import an optional module."""
        try:
            return importlib.import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise Missing(package, "torchjd", f"the weighting {self.name}") from None

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the method besides the settings."""
        return {}

    @contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Seed torch's generators by seed, name and step; restore them after the block."""
        devices = [device.index or 0] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            start_generators(seed_of(self.setup.seed, self.name, self.step), device)
            yield


class FromGram(TorchJD):
    """Weights by one of TorchJD's Weightings.

    Random orders (pcgrad) depend on seed and step alone; they are over the units in the order of
    their names.
    """

    needs_gram = True

    @torch.no_grad()
    def weights_from_gram(
        self, gram_KK: Tensor, losses_K: Tensor, present: Sequence[int]
    ) -> Tensor:
        order = sorted(range(len(present)), key=lambda k: self.setup.units[present[k]])
        G = gram_KK.cpu().double()[order][:, order]
        length = G.diagonal().mean()
        if len(present) == 1 or not length > 0:
            return torch.ones_like(gram_KK[0])
        with self.seeded(torch.device("cpu")):
            ordered = self.method(G / length)
        if not bool(ordered.isfinite().all()):
            raise Failed(
                f"the weighting {self.name} found no finite weights in step {self.step + 1}",
                try_="another weighting, or a lower train.lr",
            )
        weights = torch.empty_like(ordered)
        weights[order] = ordered
        weights = self.scaled(weights)
        if not self.sums:
            weights = weights * len(present)
        return weights.to(gram_KK)

    def scaled(self, weights_K: Tensor) -> Tensor:
        """Scale the weights so that the size of a step is comparable with other methods'."""
        return weights_K


class FromJacobian(TorchJD):
    """The gradient by one of TorchJD's Aggregators, whose sums are divided by K."""

    needs_jacobian = True
    sums = True

    @torch.no_grad()
    def combine(self, jacobian_KP: Tensor, losses_K: Tensor, present: Sequence[int]) -> Tensor:
        if len(present) == 1:
            return jacobian_KP[0]
        with self.seeded(jacobian_KP.device):
            combined: Tensor = self.method(jacobian_KP)
        return combined / len(present)


class AlignedMTL(FromGram):
    """Align the principal components of the gradients (Senushkin et al. 2023)."""

    name, class_name = "aligned-mtl", "AlignedMTLWeighting"


class CAGradSettings(Settings):
    """Settings of cagrad."""

    c: float = Field(default=0.5, ge=0, description="radius, in lengths of the mean gradient")


class CAGrad(FromGram):
    """The best gradient for the worst unit, in a ball around the mean (Liu et al. 2021)."""

    name, class_name, requires = "cagrad", "CAGradWeighting", "cvxpy"
    settings_type = CAGradSettings
    settings: CAGradSettings

    def scaled(self, weights_K: Tensor) -> Tensor:
        # as the authors do: without conflicts the gradient is (1 + c) times the mean
        return weights_K / (1 + self.settings.c)


class Projecting(FromGram):
    """A method that projects onto the cone of gradients that conflict with no unit's."""

    requires = "scipy"

    def arguments(self) -> dict[str, object]:
        linalg = self.load("torchjd.linalg")

        class Projector(linalg.DualConeProjector):  # type: ignore[misc, name-defined]
            """`project` as a projector of TorchJD."""

            def __call__(self, U: Tensor, G: Tensor) -> Tensor:
                return torch.from_numpy(project(U.double().numpy(), G.double().numpy())).to(U)

        return {"projector": Projector()}


class DualProj(Projecting):
    """Project the mean gradient (Lopez-Paz & Ranzato 2017)."""

    name, class_name = "dualproj", "DualProjWeighting"


class UPGrad(Projecting):
    """Project each gradient, then average (Quinton & Rey 2024)."""

    name, class_name = "upgrad", "UPGradWeighting"


class FairGradSettings(Settings):
    """Settings of fairgrad."""

    alpha: float = Field(default=1.0, gt=0, description="1: proportional, as Nash-MTL")


class FairGrad(FromGram):
    """α-fair resource allocation (Ban & Ji 2024)."""

    name, class_name, requires = "fairgrad", "FairGradWeighting", "scipy"
    settings_type = FairGradSettings

    def scaled(self, weights_K: Tensor) -> Tensor:
        return weights_K / weights_K.sum()  # the paper's length depends on the gradients' scale


class IMTLG(FromGram):
    """Equal projections onto the units' gradients (Liu et al. 2021)."""

    name, class_name = "imtl-g", "IMTLGWeighting"


class MGDASettings(Settings):
    """Settings of mgda."""

    epsilon: float = Field(default=1e-3, gt=0, description="stop when a step is shorter")
    max_iters: int = Field(default=100, ge=1, description="maximum number of iterations")


class MGDA(FromGram):
    """The shortest convex combination of the gradients (Désidéri 2012)."""

    name, class_name = "mgda", "MGDAWeighting"
    settings_type = MGDASettings


class PCGrad(FromGram):
    """Remove from each gradient what conflicts with another (Yu et al. 2020)."""

    name, class_name, sums = "pcgrad", "PCGradWeighting", True


class ConFIG(FromJacobian):
    """The direction with the same cosine to all gradients (Liu et al. 2024)."""

    name, class_name = "config", "ConFIG"


class GradDrop(FromJacobian):
    """For each parameter keep the gradients of one sign, drawn by share (Chen et al. 2020)."""

    name, class_name = "graddrop", "GradDrop"


GRAM = (AlignedMTL, CAGrad, DualProj, FairGrad, IMTLG, MGDA, PCGrad, UPGrad)
JACOBIAN = (ConFIG, GradDrop)
TORCHJD: Mapping[str, type[TorchJD]] = {method.name: method for method in (*GRAM, *JACOBIAN)}
NOT_OFFERED = {  # further methods of TorchJD, and why they are missing
    "constant": "it is the same as 'fixed'",
    "cr-mogm": "it smooths another method's weights",
    "excess-mtl": "its state cannot be saved and restored from outside",
    "gradvac": "its state cannot be saved and restored from outside",
    "krum": "it defends against forged gradients by dropping units",
    "mean": "it is the same as 'equal'",
    "modo": "it needs two independent batches of each unit in a step",
    "nash-mtl": "its solver ecos is under the GPL; fairgrad with alpha = 1 has the same solution",
    "pcd": "it needs one primary unit that the others serve",
    "random": "it is the same as 'rlw'",
    "sdmgrad": "it needs two independent batches of each unit in a step",
    "sum": "it is the same as 'equal'",
    "trimmed-mean": "it defends against forged gradients by dropping the largest entries",
}


def project(lower: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project Jᵀu, for each row u of `lower`, onto the cone of gradients without conflicts.

    The projection is Jᵀv, v the minimizer of vᵀGv over v ≥ u (Quinton & Rey 2024, proposition 1).
    With G = L·Lᵀ and v = u + z that is the non-negative least squares problem min ‖Lᵀz + Lᵀu‖ over
    z ≥ 0, which the method of Lawson & Hanson (1974) solves exactly. TorchJD itself uses quadprog,
    which is under the GPL.
    """
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise Missing("scipy", "torchjd", "this weighting") from None
    total = np.trace(gram)
    regular = gram / (total if total > 0 else 1.0) + REGULARIZATION * np.eye(len(gram))
    root = np.linalg.cholesky(regular).T
    rows = [u + nnls(root, -root @ u)[0] for u in lower.reshape(-1, len(gram))]
    return np.stack(rows).reshape(lower.shape)
