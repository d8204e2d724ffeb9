"""Merge specialists into one trunk, the sum or mean of their weights: a baseline without training.

Task arithmetic (Ilharco et al. 2023, "Editing models with task arithmetic"):
θ = θ0 + λ·Σ_d (θ_d − θ0), with θ0 the weights that all specialists started from: those of the run
in `init`, or pretrained ones. λ = 1/K is the mean θ̄ (Wortsman et al. 2022), whatever θ0 is.
Specialists that were trained from scratch have no common start: their initial weights are random.
Only θ̄ is possible for them, and it is expected to fail, as the order of their features differs.

Every domain keeps its slots and heads. The statistics in its norms fit the features of the
specialist and not those of the merged trunk; train/recalibrate.py estimates them again from
training images (Jordan et al. 2023, "REPAIR: REnormalizing Permuted Activations for
Interpolation Repair").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from onetrunk.config import Recipe
from onetrunk.config.recipe import seeded_weights
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import distinct_domains, evaluate
from onetrunk.nn.saving import models_of
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal
from onetrunk.train.recalibrate import recalibrate
from onetrunk.train.selection import Selection

SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # values of λ to choose from


class Specialists:
    """The networks of a run with sharing = "none", and their common initial weights.

    Args:
        folder: The folder of the run.
        domains: The names of the domains to merge; None: all.
    """

    def __init__(self, folder: str | Path, domains: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        models = models_of(self.folder)
        for model in models.values():
            if model.trunk.sharing != "none":
                raise BadInput(
                    f"{folder} has one network, and merging needs specialists",
                    got=f"sharing = {model.trunk.sharing!r}",
                    try_="a run with sharing = 'none'",
                )
        names = list(models) if domains is None else list(domains)
        for name in names:
            if name not in models:
                raise BadInput("the run has no such specialist", got=name, available=models)
        if not names or len(set(names)) < len(names):
            raise BadInput(
                "expected at least one specialist, and each only once",
                got=", ".join(names) or "none",
            )
        self.models = {name: models[name] for name in names}
        first = self.models[names[0]].trunk
        for name, model in self.models.items():
            if model.trunk.describe() != first.describe():
                raise BadInput(
                    f"{name}: only networks of the same architecture can be merged",
                    got=str(model.trunk.describe()),
                    try_=f"leave it out: {names[0]} is {first.describe()}",
                )
        self.start = common_start(self.folder)

    def merge(self, scale: float | None = None) -> Universal:
        """Return one network with sharing = "deep"; `scale` is λ, and None the mean (λ = 1/K)."""
        if scale is not None and self.start is None:
            raise BadInput(
                "specialists from scratch have no common start, so no differences to scale",
                got=f"scale = {scale}",
                try_="no scale, for the mean; or train the specialists with init = RUN",
            )
        if scale is not None and not math.isfinite(scale):
            raise BadInput("expected a finite scale", got=scale)
        like = next(iter(self.models.values())).trunk
        trunk = Trunk(
            like.arch, norm=like.norm, adapters=like.adapters, adapter_layers=like.adapter_layers
        )
        trunk.load_shared(self._sum(scale))
        trunk.licence, trunk.normalization = like.licence, like.normalization
        model, sha256 = Universal(trunk), trunk.fingerprint()
        for name, specialist in self.models.items():
            pack = replace(specialist.pack(name), trunk=trunk.describe(), sha256=sha256)
            model.add_pack(pack)
        return model.eval()

    @torch.no_grad()
    def _sum(self, scale: float | None) -> dict[str, Tensor]:
        """Return θ by name, summed in float64; integers (counts of batches) are the first's."""
        trunks = [model.trunk.shared() for model in self.models.values()]
        merged = {}
        for key, tensor in trunks[0].items():
            if not tensor.is_floating_point():
                merged[key] = tensor.clone()
                continue
            terms = torch.stack([trunk[key].double() for trunk in trunks])
            if scale is None or self.start is None:
                total = terms.mean(0)
            else:
                origin = self.start[key].double()
                total = origin + scale * (terms - origin).sum(0)
                if key.endswith("running_var"):  # of a shared norm, which λ may make negative
                    total = total.clamp_min(0.0)
            merged[key] = total.to(tensor.dtype)
        return merged


def merge(
    folder: str | Path, domains: Sequence[str] | None = None, scale: float | None = None
) -> Universal:
    """Merge the specialists of a run into one network; see `Specialists`."""
    return Specialists(folder, domains).merge(scale)


def common_start(folder: Path) -> dict[str, Tensor] | None:
    """Return the initial shared weights of all specialists of a run; None if these differ."""
    recipe = Recipe.read(folder)
    if recipe.init_folder is not None:
        models = models_of(recipe.init_folder)
        if len({id(model) for model in models.values()}) > 1:
            return None  # each started from its own network
        return next(iter(models.values())).trunk.shared()
    if recipe.trunk.pretrained is False:
        return None
    with seeded_weights(recipe.seed):
        return recipe.make_trunk().shared()


@dataclass(frozen=True)
class Merged:
    """A merged network, its λ, and the validation errors by which λ was chosen."""

    model: Universal
    scale: float | None  # None: the mean, without a common start
    val: Mapping[float, float]  # the mean validation error by λ (1/K: the mean)


def choose_scale(
    folder: str | Path,
    domains: Sequence[Domain],
    scales: Sequence[float] = SCALES,
    *,
    recalibrated: bool = False,
    device: torch.device | str | None = None,
) -> Merged:
    """Merge with the λ that has the lowest mean validation error.

    Args:
        folder: A run of specialists; without a common start only the mean is evaluated.
        domains: Domains of the run.
        scales: The values of λ to choose from.
        recalibrated: Estimate the statistics of norms again for every λ.
        device: Where to evaluate; None: a GPU if there is one.
    """
    specialists = Specialists(folder, [domain.name for domain in distinct_domains(domains)])
    candidates: Sequence[float | None] = scales if specialists.start is not None else (None,)
    if not candidates:
        raise BadInput("expected at least one scale", got="none")
    selection = Selection()
    val: dict[float, float] = {}
    best: tuple[Universal, float | None] | None = None
    for step, scale in enumerate(candidates):
        model = specialists.merge(scale)
        if recalibrated:
            recalibrate(model, domains, device=device)
        table = evaluate(model, domains, "val", device=device, intervals=False, notes=False)
        if selection.update(step, table) or best is None:
            best = model, scale
        val[1 / len(domains) if scale is None else scale] = selection.last
    assert best is not None
    return Merged(*best, val)
