"""Baselines of a recipe: the usual alternatives to its network, on the same domains.

| method | what it is | how its recipe differs |
|---|---|---|
| frozen | linear heads on the initial trunk | `train.frozen = true`, `trunk.norm = "shared"` |
| finetune | one full network per domain | `trunk.sharing = "none"` |
| joint | one network in which only the heads belong to a domain | `trunk.norm = "shared"` |

None of them has adapters. Each is an ordinary run beside that of the recipe: OUT-frozen,
OUT-finetune and OUT-joint. OUT-baselines.json compares their scores and costs.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onetrunk.config import Recipe
from onetrunk.errors import BadInput
from onetrunk.eval.table import Row, Table
from onetrunk.nn.model_files import TRUNK
from onetrunk.nn.norms import find_norm
from onetrunk.nn.saving import models_of
from onetrunk.runs.experiment import domain_errors, resolve_all, seconds_of, train_all
from onetrunk.runs.open import Run
from onetrunk.store.atomic import write_atomic
from onetrunk.store.places import check_file
from onetrunk.store.run_folder import shell
from onetrunk.store.strict_json import strict_json

METHODS = ("frozen", "finetune", "joint")
FORMAT = 1
NOTHING_OWNED = ('trunk.adapters="none"', "trunk.own_stages=[]")
ROW_KEYS = ("domain", "task", "metric", "unit", "better")


def compare_baselines(
    recipe: Recipe,
    methods: Sequence[str] = METHODS,
    *,
    resume: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Train baselines of a recipe one after the other; finished ones are not trained again.

    Args:
        recipe: The recipe; its own network is not trained.
        methods: Names from METHODS.
        resume: Continue unfinished runs.
        device: Where to train; None: a GPU if there is one.

    Returns:
        The content of OUT-baselines.json: `rows` has the test scores by domain and task, `runs` has
        parameters and seconds; both have a value for each method.
    """
    for method in methods:
        if method not in METHODS:
            raise BadInput("unknown method", got=method, available=METHODS)
    if not methods or len(set(methods)) < len(methods):
        raise BadInput(
            "expected at least one method, and each only once",
            got=", ".join(methods) or "none",
            available=METHODS,
        )
    (recipe,) = resolve_all({recipe.name: recipe}, device).values()
    for method in methods:
        check_start(recipe, method)
    check_file(beside(recipe, "baselines.json"), "--set out=…")
    recipes = {method: variant(recipe, method) for method in methods}
    runs = train_all(recipes, resume=resume, device=device)
    document = {
        "format": FORMAT,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "runs": {method: _cost(recipes[method], run) for method, run in runs.items()},
        "rows": _rows({method: run.table for method, run in runs.items()}),
        "try": _report_command(recipe, methods),
    }
    write_atomic(beside(recipe, "baselines.json"), strict_json(document, indent=1) + "\n")
    return document


def variant(recipe: Recipe, method: str) -> Recipe:
    """Return the recipe of a baseline."""
    sets = [
        f"out={json.dumps(recipe.out.rstrip('/') + '-' + method)}",
        f"name={recipe.name[: 63 - len(method)]}-{method}",
        f"train.frozen={json.dumps(method == 'frozen')}",
        *(["distill.enabled=false"] if recipe.distill.on or recipe.distill.uses_lwf else []),
    ]
    if method == "finetune":
        return recipe.with_sets([*sets, *NOTHING_OWNED, 'trunk.sharing="none"'])
    if recipe.init_folder is None:
        shared = ('trunk.sharing="deep"', 'trunk.norm="shared"')
        return recipe.with_sets([*sets, *NOTHING_OWNED, *shared])
    if method == "joint":
        return recipe.with_sets([*sets, *NOTHING_OWNED, 'trunk.sharing="deep"'])
    # frozen, from a run: with all that its domains own
    several = not (recipe.init_folder / "model" / TRUNK).is_file()
    if recipe.trunk.sharing == "full" or (recipe.trunk.sharing == "none" and not several):
        sets.append('trunk.sharing="deep"')
    return recipe.with_sets(sets)


def check_start(recipe: Recipe, method: str) -> None:
    """Refuse a baseline that cannot load what the domains of the recipe's `init` own."""
    if recipe.init_folder is None or method == "frozen":
        return
    owned, others, got = "", "", f"norm = {recipe.trunk.norm!r}"
    if method == "joint" and find_norm(recipe.trunk.norm).replaces_layers:
        owned, others = "norms", "frozen,finetune"
    if recipe.trunk.own_stages and any(
        model.trunk.own_stages for model in models_of(recipe.init_folder).values()
    ):
        owned, others, got = "stages", "frozen", f"own_stages = {list(recipe.trunk.own_stages)}"
    if owned:
        raise BadInput(
            f"{method} has no {owned} per domain, so it cannot start from {recipe.init}",
            got=got,
            try_=f"--methods {others}",
        )


def beside(recipe: Recipe, ending: str) -> Path:
    """Return the path OUT-ENDING, beside the folder of the recipe's run."""
    out = recipe.out_folder
    return out.with_name(f"{out.name}-{ending}")


def _cost(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Return the folder and the cost of a run; `networks` is its size in networks of one domain."""
    scores = run.scores
    parts = scores["budget"].values()
    parameters = sum(part["universal"]["parameters"] for part in parts)
    one = sum(part["separate"]["parameters"] for part in parts) / len(recipe.domains)
    weights = "fresh" if recipe.trunk.pretrained is False else "pretrained"
    return {
        "out": recipe.out,
        "weights": f"of {recipe.init}" if recipe.init else weights,
        "parameters": parameters,
        "networks": parameters / one,
        "seconds": seconds_of(run.folder),
        "mean_error": mean_error(Table.from_json(scores["test"])),
    }


def mean_error(table: Table) -> float | None:
    """Return the mean error over domains; None if tasks differ in kind and so in unit."""
    if len({row.kind for row in table.headlines()}) != 1:
        return None
    return statistics.fmean(domain_errors(table).values())


def _rows(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """Return a row for each task that has a headline, with the values of all methods."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for method, table in tables.items():
        for row in table.headlines():
            rows.setdefault((row.domain, row.task), _empty(row))["values"][method] = row.value
    return list(rows.values())


def _empty(row: Row) -> dict[str, Any]:
    return {**{key: getattr(row, key) for key in ROW_KEYS}, "values": {}}


def _report_command(recipe: Recipe, methods: Sequence[str]) -> str:
    """Return the command that compares the recipe's run with a baseline."""
    baseline = next(method for method in ("finetune", "joint", "frozen") if method in methods)
    run, other = shell(recipe.out_folder), shell(beside(recipe, baseline))
    return f"onetrunk report {run} --baseline {other}"
