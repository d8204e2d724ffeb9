"""From a recipe to a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.nn.trunk import Trunk
from onetrunk.nn.universal import Universal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onetrunk.config.recipe import Recipe


def make_model(recipe: Recipe, domains: Sequence[Domain]) -> dict[str, Universal]:
    """The model under the key ""; with sharing = "none" one for each domain, under its name.

    A specialist's weights depend on the seed and its own name: others may come and go.
    """
    if recipe.trunk.sharing == "none":
        made = {}
        for domain in domains:
            with drawn_from(seed_of(recipe.seed, domain.name)):
                made[domain.name] = Universal(make_trunk(recipe), [domain])
        return made
    with drawn_from(recipe.seed):
        return {"": Universal(make_trunk(recipe), domains, pair=recipe.trunk.pair)}


def make_trunk(recipe: Recipe, pretrained: bool = True) -> Trunk:
    """The trunk without domains; `pretrained` = False: with fresh weights whatever it says."""
    part = recipe.trunk
    weights = part.pretrained if pretrained else False
    return Trunk(
        part.arch,
        norm=part.norm,
        sharing=part.sharing,
        own_stages=part.own_stages,
        adapters=part.adapters,
        adapter_layers=part.adapter_layers,
        pretrained=recipe.root / weights if isinstance(weights, str) else weights,
    )


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Weights are drawn from this seed; the caller's generators go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: it would move the generators of every device
        torch.default_generator.manual_seed(seed)
        yield
