"""Make the recipe of a training that was set up in Python, for the folder of its run.

Objects that TOML cannot represent, such as a source or a teacher, are replaced by the names of
their types: "python:MySource".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config.distill import Distill
from onetrunk.config.optimizers import train_defaults
from onetrunk.config.recipe import Recipe
from onetrunk.config.to_toml import document_of
from onetrunk.config.train import Train
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.errors import BadInput
from onetrunk.nn.universal import Universal
from onetrunk.settings import Settings


def check_settings(given: object, kind: type[Settings]) -> None:
    """Raise BadInput unless settings are None or objects of their class."""
    if given is None or isinstance(given, kind):
        return
    name = f"ot.{kind.__name__}"
    several = isinstance(given, Mapping)
    raise BadInput(
        f"expected settings as an object of {name}",
        got=type(given).__name__,
        try_=f"{name}(**settings)" if several else f"{name}(…), whose keys are its arguments",
    )


def recipe_of(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    seed: int,
    out: Path,
    distill: Distill | None = None,
) -> Recipe:
    """Return the recipe of a model, domains and settings."""
    trunk = {**document_of(model.trunk.settings), "pair": model.pair}
    tables = [_with_heads(table_of(domain), model) for domain in domains]
    return recipe_for(domains, _for_start(train, model, distill), seed, out, trunk, distill, tables)


def recipe_for(
    domains: Sequence[Domain],
    train: Train,
    seed: int,
    out: Path,
    trunk: Mapping[str, Any],
    distill: Distill | None = None,
    tables: Sequence[Mapping[str, Any]] | None = None,
) -> Recipe:
    """Return the recipe of domains and settings.

    Args:
        trunk: The [trunk] table.
        tables: The [[domains]] tables, if they are not those of the domains.
    """
    bases = {domain.base for domain in domains}
    base = str(bases.pop()) if len(bases) == 1 else "."
    document: dict[str, Any] = {
        "name": re.sub(r"[^a-z0-9_-]+", "-", out.name.lower()).strip("-_")[:64] or "run",
        "seed": seed,
        "out": str(out if base == "." else out.resolve()),
        "base": base,
        "trunk": dict(trunk),
        "domains": [table_of(domain) for domain in domains] if tables is None else list(tables),
        "train": train.given(),
        "distill": {} if distill is None else distill.given(),
    }
    return Recipe.from_document(document, Path())


def _for_start(train: Train, model: Universal, distill: Distill | None) -> Train:
    """Return the settings with the defaults for the weights that the trunk was made with."""
    if model.trunk.pretrained is False:
        return train
    taught = distill is not None and (distill.on or distill.uses_lwf)
    defaults = train_defaults(train.optimizer, "pretrained", taught)
    given = {key: value for key, value in defaults.items() if value is not None}
    return Train.of({**given, **train.given()}, "train")


def _with_heads(table: dict[str, Any], model: Universal) -> dict[str, Any]:
    """Return the table of a domain with the heads that it has in the model."""
    heads = {task: head.plain() for task, head in model.domains[table["name"]].heads.items()}
    return {**table, "heads": heads}


def distill_settings(distill: Distill | None, teachers: object) -> Distill | None:
    """Return the settings of distillation with these teachers; if empty, with `distill.teachers`.

    Args:
        distill: The settings; None: the defaults.
        teachers: As in `ot.train`: names, objects, and lists and tables of them.
    """
    if teachers:
        given = Distill() if distill is None else distill
        return Distill.of({**given.given(), "teachers": _teacher_names(teachers)}, "distill")
    if distill is not None and not distill.teachers:
        raise BadInput("distillation needs teachers", try_='teachers="runs/specialists"')
    return distill


def _teacher_names(teachers: object) -> Any:
    if isinstance(teachers, str | Path):
        return str(teachers)
    if isinstance(teachers, Mapping):
        return {str(key): _teacher_names(value) for key, value in teachers.items()}
    if isinstance(teachers, list | tuple):
        return [_teacher_names(teacher) for teacher in teachers]
    return f"python:{getattr(teachers, 'name', type(teachers).__name__)}"


def table_of(domain: Domain) -> dict[str, Any]:
    """Return the [[domains]] table of a domain, with the size and tasks of its source."""
    table = document_of(settings_of(domain))
    return {key: value for key, value in table.items() if value not in ("auto", "")}


def settings_of(domain: Domain) -> DomainSettings:
    """Return the settings of a domain, with the size and tasks of its source."""
    requested = {task.name: task.classes for task in domain.requested_tasks or ()}
    tasks = tuple(  # requested classes may be a subset of the source's, or in another order
        task.with_classes(requested.get(task.name, ())) for task in domain.tasks
    )
    return domain.settings.model_copy(update={"size": domain.shape.size, "tasks": tasks})
