"""Merging: specialists' weights added up into one trunk, without any training. A baseline.

Task arithmetic (Ilharco et al. 2023, "Editing models with task arithmetic"):
θ = θ0 + λ·Σ_d (θ_d − θ0), θ0 the weights that all specialists started from: of the run that they
name as `init`, or pretrained ones. λ = 1/K is the plain mean θ̄ (Wortsman et al. 2022), whatever θ0.
Specialists from scratch have no common start (each draws its own weights): only θ̄ is left then, of
networks whose features stand in no order, and it is expected to fail.

Every domain keeps its own slots and heads. Their norms' statistics fit the specialist's features and
not the merged ones; recalibrate.py takes them anew from training images (as Jordan et al. 2023,
"REPAIR: REnormalizing Permuted Activations for Interpolation Repair", do after averaging).
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

SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # λ that are tried


class Specialists:
    """The networks of a run with sharing = "none", and what they started from, read once."""

    def __init__(self, folder: str | Path, domains: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        found = models_of(self.folder)
        for model in found.values():
            if model.trunk.sharing != "none":
                raise BadInput(
                    f"{folder} holds one network, and specialists are merged",
                    got=f"sharing = {model.trunk.sharing!r}",
                    try_="a run with sharing = 'none'",
                )
        wanted = list(found) if domains is None else list(domains)
        for name in wanted:
            if name not in found:
                raise BadInput("the run has no such specialist", got=name, available=found)
        if not wanted or len(set(wanted)) < len(wanted):
            raise BadInput("expected specialists, each once", got=", ".join(wanted) or "none")
        self.models = {name: found[name] for name in wanted}
        first = self.models[wanted[0]].trunk
        for name, model in self.models.items():
            if model.trunk.describe() != first.describe():
                raise BadInput(
                    f"{name}: only networks of one kind have a sum",
                    got=str(model.trunk.describe()),
                    try_=f"leave it out: {wanted[0]} is {first.describe()}",
                )
        self.start = common_start(self.folder)

    def merge(self, scale: float | None = None) -> Universal:
        """One network with sharing = "deep"; `scale` is λ, without it 1/K: the mean."""
        if scale is not None and self.start is None:
            raise BadInput(
                "specialists from scratch have no common start, so no differences to scale",
                got=f"scale = {scale}",
                try_="leave scale away: the mean; or train them with init = RUN",
            )
        if scale is not None and not math.isfinite(scale):
            raise BadInput("scale is a finite number", got=scale)
        like = next(iter(self.models.values())).trunk
        trunk = Trunk(
            like.arch, norm=like.norm, adapters=like.adapters, adapter_layers=like.adapter_layers
        )
        trunk.load_shared(self._sum(scale))
        trunk.licence = like.licence
        model, sha256 = Universal(trunk), trunk.fingerprint()
        for name, specialist in self.models.items():
            pack = replace(specialist.pack(name), trunk=trunk.describe(), sha256=sha256)
            model.add_pack(pack)
        return model.eval()

    @torch.no_grad()
    def _sum(self, scale: float | None) -> dict[str, Tensor]:
        """θ by name, added up in float64; whole numbers (counts of batches) are the first's."""
        trunks = [model.trunk.shared() for model in self.models.values()]
        made = {}
        for key, tensor in trunks[0].items():
            if not tensor.is_floating_point():
                made[key] = tensor.clone()
                continue
            terms = torch.stack([trunk[key].double() for trunk in trunks])
            if scale is None or self.start is None:
                total = terms.mean(0)
            else:
                origin = self.start[key].double()
                total = origin + scale * (terms - origin).sum(0)
                if key.endswith("running_var"):  # of a shared norm: λ may lead below zero
                    total = total.clamp_min(0.0)
            made[key] = total.to(tensor.dtype)
        return made


def merge(
    folder: str | Path, domains: Sequence[str] | None = None, scale: float | None = None
) -> Universal:
    """The specialists of a run's folder (of these domains) as one network; `scale`: λ, or 1/K."""
    return Specialists(folder, domains).merge(scale)


def common_start(folder: Path) -> dict[str, Tensor] | None:
    """The shared weights that all specialists of a run began with; None where each drew its own."""
    recipe = Recipe.read(folder)
    if recipe.init_folder is not None:
        found = models_of(recipe.init_folder)
        if len({id(model) for model in found.values()}) > 1:
            return None  # each went on from its own
        return next(iter(found.values())).trunk.shared()
    if recipe.trunk.pretrained is False:
        return None
    with seeded_weights(recipe.seed):
        return recipe.make_trunk().shared()


@dataclass(frozen=True)
class Merged:
    """A merged network, and how its λ was chosen."""

    model: Universal
    scale: float | None  # None: the mean, where there is no common start
    val: Mapping[float, float]  # by λ the mean validation error (1/K: the mean)


def choose_scale(
    folder: str | Path,
    domains: Sequence[Domain],
    scales: Sequence[float] = SCALES,
    *,
    recalibrated: bool = False,
    device: torch.device | str | None = None,
) -> Merged:
    """The λ with the lowest mean validation error, and its network; `recalibrated`: with statistics
    taken anew for every λ. Without a common start there is the mean alone."""
    found = Specialists(folder, [domain.name for domain in distinct_domains(domains)])
    tried: Sequence[float | None] = scales if found.start is not None else (None,)
    if not tried:
        raise BadInput("expected at least one scale", got="none")
    selection = Selection()
    val: dict[float, float] = {}
    best: tuple[Universal, float | None] | None = None
    for step, scale in enumerate(tried):
        model = found.merge(scale)
        if recalibrated:
            recalibrate(model, domains, device=device)
        table = evaluate(model, domains, "val", device=device, intervals=False, progress=False)
        if selection.update(step, table) or best is None:
            best = model, scale
        val[1 / len(domains) if scale is None else scale] = selection.last
    assert best is not None
    return Merged(*best, val)
