"""The recipe of a training that was set up in Python, for the folder of its run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onetrunk.config.distill import Distill
from onetrunk.config.recipe import Recipe
from onetrunk.config.to_toml import document_of
from onetrunk.config.train import Train
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.nn.universal import Universal


def recipe_of(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    seed: int,
    out: Path,
    distill: Distill | None = None,
) -> Recipe:
    """Return the recipe of a model, domains and settings; a source object is given by its type."""
    bases = {domain.base for domain in domains}
    base = str(bases.pop()) if len(bases) == 1 else "."
    document: dict[str, Any] = {
        "name": re.sub(r"[^a-z0-9_-]+", "-", out.name.lower()).strip("-_")[:64] or "run",
        "seed": seed,
        "out": str(out if base == "." else out.resolve()),
        "base": base,
        "trunk": {**document_of(model.trunk.settings), "pair": model.pair},
        "domains": [table_of(domain) for domain in domains],
        "train": train.given(),
        "distill": {} if distill is None else distill.given(),
    }
    return Recipe.of(document)


def table_of(domain: Domain) -> dict[str, Any]:
    """Return the [[domains]] table of a domain, with its size and tasks as they were found."""
    table = document_of(settings_of(domain))
    return {key: value for key, value in table.items() if value not in ("auto", "")}


def settings_of(domain: Domain) -> DomainSettings:
    """Return the settings of a domain, with its size and tasks as they were found."""
    requested = {task.name: task.classes for task in domain.requested_tasks or ()}
    tasks = tuple(  # the user's classes may leave some of the source's out, or reorder them
        task.with_classes(requested.get(task.name, ())) for task in domain.tasks
    )
    return domain.settings.model_copy(update={"size": domain.shape.size, "tasks": tasks})
