"""A recipe for what was put together in Python, so that its run says what it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onetrunk.config import Distill, Recipe, Train
from onetrunk.data.augment import Augment
from onetrunk.data.domain import Domain
from onetrunk.data.task import Task
from onetrunk.nn.universal import Universal

NOTHING = Distill()


def described(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    seed: int,
    out: Path,
    distill: Distill = NOTHING,
) -> Recipe:
    """The recipe; what a file cannot say (a source that is an object) is named, not repeated."""
    trunk = model.trunk
    bases = {domain.base for domain in domains}
    document: dict[str, Any] = {
        "name": re.sub(r"[^a-z0-9_-]+", "-", out.name.lower()).strip("-_")[:64] or "run",
        "seed": seed,
        "out": str(out),
        "base": str(bases.pop()) if len(bases) == 1 else ".",
        "trunk": {
            "arch": trunk.arch,
            "norm": trunk.norm,
            "sharing": trunk.sharing,
            "own_stages": list(trunk.own_stages),
            "adapters": trunk.adapters,
            "adapter_layers": list(trunk.adapter_layers),
            "pair": model.pair,
        },
        "domains": [table_of(domain) for domain in domains],
        "train": train.model_dump(exclude_unset=True),
    }
    if distill != NOTHING:
        document["distill"] = distill.model_dump(exclude_unset=True)
    if document["base"] != ".":
        document["out"] = str(out.resolve())
    return Recipe.of(document)


def table_of(domain: Domain) -> dict[str, Any]:
    """A [[domains]] table."""
    source, augment = domain.source, domain.augment
    said = {
        "name": domain.name,
        "source": source if isinstance(source, str) else f"python:{type(source).__name__}",
        "tasks": {task.name: _task(task, domain.asked or ()) for task in domain.tasks},
        "size": list(domain.shape.size),
        "fit": domain.fit,
        "margin": domain.margin,
        "fill": domain.fill,
        "flip": domain.flip,
        "augment": asdict(augment) if isinstance(augment, Augment) else augment,
        "normalize": domain.normalize,
        "image": domain.image,
        "group": domain.group,
        "split": domain.split,
        "weight": float(domain.weight),
        "batch": domain.batch,
        "allow_bad": domain.allow_bad,
    }
    return {key: value for key, value in said.items() if value is not None}


def _task(task: Task, asked: Sequence[Task]) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": task.kind, "outputs": task.outputs, "unit": task.unit}
    if task.column:
        said["column"] = task.column
    # the user's own classes may leave some out of the source's, or have another order
    classes = next((given.classes for given in asked if given.name == task.name), ())
    return said | ({"classes": list(classes)} if classes else {})
