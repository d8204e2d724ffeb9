"""The recipe of a training that was set up in Python, for the folder of its run.

Objects that a file cannot hold, such as a source or a teacher, are given by the names of their
types: "python:MySource".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config.distill import Distill
from onetrunk.config.recipe import Recipe
from onetrunk.config.to_toml import document_of
from onetrunk.config.train import Train
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.errors import BadInput
from onetrunk.nn.universal import Universal


def recipe_of(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    seed: int,
    out: Path,
    distill: Distill | None = None,
) -> Recipe:
    """Return the recipe of a model, domains and settings."""
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


def distill_settings(distill: Distill | None, teachers: object) -> Distill | None:
    """Return the settings of distillation with the given teachers, or with their own if "".

    Args:
        distill: The settings; None: the defaults.
        teachers: What `ot.train` takes: names, objects, and lists and tables of them.
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
