"""The floors of a run: scores of predictions that need no training of a network.

They are computed for a run's first report and kept in its folder, `RUN/floors/NAME.json` (a table
and what it was computed from) and `NAME.safetensors` (outcomes of the test images). A floor is
computed again when the images, the tasks or the initial weights of the run have changed. The floor
`features` only exists for runs whose trunk did not start from random weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, TypeVar

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.errors import OnetrunkError
from onetrunk.eval.floors import constant_floor, neighbour_floor
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.result import EvaluationResult
from onetrunk.eval.table import Table
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.report.run_files import RunFiles, RunGroup
from onetrunk.runs.environment import data_fingerprint
from onetrunk.runs.open import Run, read_json
from onetrunk.runs.train import scale_numbers
from onetrunk.store.atomic import write_atomic
from onetrunk.train.device import choose_device
from onetrunk.train.frozen_floor import features_floor
from onetrunk.train.initialize import start_from

CONSTANT, NEIGHBOUR, FEATURES = "constant", "neighbour", "features"
PHRASES: Mapping[str, str] = {
    CONSTANT: "a constant prediction",
    NEIGHBOUR: "the nearest neighbour on pixels",
    FEATURES: "a linear head on frozen features",
}
CONSTANTS: Mapping[str, str] = {
    "classify": "majority class",
    "multilabel": "label frequencies",
    "regress": "mean",
    "segment": "majority class",
    "depth": "median",
    "normals": "mean direction",
    "embed": "chance",
}
TITLES: Mapping[str, str] = {NEIGHBOUR: "nearest neighbour", FEATURES: "frozen features"}
FORMAT = 1
FOLDER = "floors"
LIMIT = 60.0  # seconds that the features of one domain may take, unless all floors are wanted

FloorChoice = Literal["auto", "all", "none"]
FLOOR_CHOICES: tuple[FloorChoice, ...] = ("auto", "all", "none")
Floors = Mapping[str, RunGroup]  # by name; each like the run of a network
Models = Mapping[str, Universal]
Value = TypeVar("Value")
Attempt = Callable[[str, Callable[[], Value]], Value | None]


def title_of(floor: str, kind: str) -> str:
    """Name the floor of a kind of task in two words."""
    return TITLES.get(floor) or CONSTANTS[kind]


def floors_of(
    run: Run,
    models: Models,
    domains: Sequence[Domain],
    choice: FloorChoice,
    attempt: Attempt[RunGroup | None],
    seed: int,
) -> dict[str, RunGroup]:
    """Return the floors of a run, from its folder or newly computed.

    Args:
        run: The run.
        models: Its network of each domain.
        domains: The domains whose images can be read; if there are none, stored floors are used.
        choice: "none": none; "auto": `features` only where it takes less than a minute a domain.
        attempt: Calls a function, and handles its errors.
        seed: The seed of all samples.
    """
    if choice == "none":
        return {}
    recipe = run.recipe
    names = [CONSTANT, NEIGHBOUR]
    if recipe is not None and starts_trained(recipe):
        names.append(FEATURES)
    limit = LIMIT if choice == "auto" else None
    found = {}
    for name in names:
        group = attempt(
            f"floor: {PHRASES[name]}",
            lambda name=name: _floor(run, recipe, name, models, domains, limit, seed),  # type: ignore[misc]
        )
        if group is not None:
            found[name] = group
    return found


def starts_trained(recipe: Recipe) -> bool:
    """Return whether the trunk of a recipe starts from trained weights."""
    return recipe.trunk.pretrained is not False or recipe.init_folder is not None


def read_floors(folder: Path) -> dict[str, RunGroup]:
    """Return the floors that are stored in a run's folder."""
    found = {name: _stored(folder, name, None) for name in PHRASES}
    return {name: group for name, group in found.items() if group is not None}


def _floor(
    run: Run,
    recipe: Recipe | None,
    name: str,
    models: Models,
    domains: Sequence[Domain],
    limit: float | None,
    seed: int,
) -> RunGroup | None:
    """Return one floor; None if it has no scores."""
    if not domains:
        return _stored(run.folder, name, None)
    basis = _basis(recipe, name, models, domains, seed)
    if (stored := _stored(run.folder, name, basis)) is not None:
        return stored
    say(f"scoring {PHRASES[name]}")
    if name == FEATURES:
        if recipe is None:
            return None
        results = _features(recipe, domains, limit, seed)
    else:
        score = constant_floor if name == CONSTANT else neighbour_floor
        results = [score(d, models[d.name].domains[d.name], seed=seed) for d in domains]
    tasks = [task for result in results for task in result.tasks]
    result = EvaluationResult("test", tasks, quiet=True)
    table = Table(tuple(row for row in result.table().rows if row.headline), "test")
    if not table.rows:
        return None
    outcomes = result.outcomes()
    _store(run.folder, name, basis, table, outcomes)
    return _group(run.folder, name, table.to_json(), outcomes)


def _features(
    recipe: Recipe, domains: Sequence[Domain], limit: float | None, seed: int
) -> list[EvaluationResult]:
    """Evaluate linear heads on the trunk as it was before the training."""
    domains = [copy(domain) for domain in domains]  # the initial weights set their normalization
    models = recipe.make_model(domains)
    if recipe.init_folder is not None:
        start_from(recipe.init_folder, models)
    device = choose_device(None)
    results = []
    for model in models.values():
        scale_numbers(model, domains)
        model.to(device)
        own = [domain for domain in domains if domain.name in model.domains]
        results += [features_floor(model, domain, seed=seed, limit=limit) for domain in own]
        model.cpu()
    return results


def _basis(
    recipe: Recipe | None, name: str, models: Models, domains: Sequence[Domain], seed: int
) -> dict[str, Any]:
    """Return what a floor depends on, as JSON."""
    data = {}
    for domain in domains:
        tasks = [
            [t.name, t.kind, *t.classes] for t in models[domain.name].domains[domain.name].tasks
        ]
        text = data_fingerprint(domain) + json.dumps(tasks)
        data[domain.name] = hashlib.sha256(text.encode()).hexdigest()
    start: list[str] = []
    if name == FEATURES and recipe is not None:
        start = [recipe.trunk.arch, str(recipe.trunk.pretrained), recipe.init]
    return {"format": FORMAT, "seed": seed, "data": data, "start": start}


def _stored(folder: Path, name: str, basis: Mapping[str, Any] | None) -> RunGroup | None:
    """Return a stored floor, if it has this basis (None: any) and is intact."""
    try:
        document = read_json(folder / FOLDER / f"{name}.json")
        if not document or (basis is not None and document.get("basis") != basis):
            return None
        Table.from_json(document["table"])
        outcomes = Outcomes.open(folder / FOLDER / f"{name}.safetensors")
    except (OnetrunkError, KeyError, TypeError):
        return None
    return _group(folder, name, document["table"], outcomes)


def _store(
    folder: Path, name: str, basis: Mapping[str, Any], table: Table, outcomes: Outcomes
) -> None:
    """Keep a floor in the run's folder, if that can be written."""
    try:
        outcomes.save(folder / FOLDER / f"{name}.safetensors")
        text = json.dumps({"basis": basis, "table": table.to_json()}, indent=1)
        write_atomic(folder / FOLDER / f"{name}.json", text + "\n")
    except OSError as error:
        say(f"note: the scores of {PHRASES[name]} were not kept in {folder}: {error.strerror}")


def _group(folder: Path, name: str, table: Mapping[str, Any], outcomes: Outcomes) -> RunGroup:
    return RunGroup(name, (RunFiles(folder, "", {}, {"test": table}, {}, (), outcomes),))
