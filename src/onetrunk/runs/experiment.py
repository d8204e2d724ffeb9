"""Several runs of one recipe: train those that are not finished, and compare their scores.

`train_all` trains recipes by name; `onetrunk compare`, `onetrunk demo` and `sweep` use it. `sweep`
trains seeds and grids of settings.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from onetrunk.config import Recipe
from onetrunk.config.check import check_weights
from onetrunk.config.resolve import resolve, run_recipe
from onetrunk.config.to_toml import inline
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import as_error
from onetrunk.eval.table import Table
from onetrunk.progress import say
from onetrunk.runs.open import Run
from onetrunk.runs.train import train_recipe
from onetrunk.store.atomic import write_atomic
from onetrunk.store.differ import differ
from onetrunk.store.places import check_folder
from onetrunk.store.run_folder import METRICS, RECIPE, SCORES, check_place, shell
from onetrunk.train.device import choose_device
from onetrunk.train.selection import error_by_domain, unit_of

SWEEP = "sweep.json"
SEED = re.compile(r"seed-\d+")  # names of folders of runs
MAX_KEYS = 6  # differing keys that an error names


def is_finished(folder: Path, recipe_text: str, *, resume: bool) -> bool:
    """Return whether a folder holds the finished run of a recipe.

    BadInput is raised for the run of another recipe, and without `resume` for an unfinished run.

    Args:
        folder: The folder of the run.
        recipe_text: The text of the recipe as a file in that folder.
        resume: Whether an unfinished run may be continued.
    """
    path = folder / RECIPE
    if not path.is_file():
        return False
    keys = [k for k in differ(path.read_text("utf-8"), recipe_text) if not k.startswith("out (")]
    if keys:  # a run that was moved is the same run
        raise BadInput(
            f"{folder} holds another run: its recipe differs in {'; '.join(keys[:MAX_KEYS])}",
            try_=f"another folder, or remove {shell(folder)}",
        )
    finished = (folder / SCORES).is_file()
    if not finished and not resume:
        raise BadInput(f"the run {folder} is unfinished", try_="the same command with --resume")
    return finished


def train_all(
    recipes: Mapping[str, Recipe], *, resume: bool = False, device: str | None = None
) -> dict[str, Run]:
    """Train one run after the other; finished ones are not trained again.

    All folders are checked before the first run starts.

    Args:
        recipes: The recipe of each run, by a label for messages.
        resume: Continue unfinished runs.
        device: Where to train; None: a GPU if there is one.
    """
    for recipe in recipes.values():
        check_place(recipe.out_folder)
    recipes = resolve_all(recipes, device)
    finished = {
        label: is_finished(recipe.out_folder, recipe.text_in(recipe.out_folder), resume=resume)
        for label, recipe in recipes.items()
    }
    errors = [
        error
        for label, recipe in recipes.items()
        if not finished[label]
        for error in check_weights(recipe)
    ]
    if errors:  # before the first run, not before the one that needs the weights
        raise BadInput.several(errors)
    runs = {}
    for label, recipe in recipes.items():
        folder = recipe.out_folder
        if finished[label]:
            say(f"{label}: {folder} is already finished")
            runs[label] = Run(folder)
        else:
            say(f"{label}: {folder}")
            runs[label] = train_recipe(recipe, resume=resume, device=device)
    return runs


def resolve_all(recipes: Mapping[str, Recipe], device: str | None) -> dict[str, Recipe]:
    """Return resolved recipes, and print what is chosen; a run that has begun decides for all."""
    place = choose_device(device)
    like = next(filter(None, map(run_recipe, recipes.values())), None)
    resolved = {label: resolve(recipe, place, like) for label, recipe in recipes.items()}
    for line in dict.fromkeys(line for each in resolved.values() for line in each.notes):
        say(line)
    return {label: each.recipe for label, each in resolved.items()}


def seconds_of(folder: Path) -> float:
    """Return the seconds of training in the metrics of a run, summed over heads and networks."""
    heads = 0.0
    networks: dict[str, float] = {}
    try:
        lines = (folder / METRICS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return 0.0
    for line in lines:
        record = json.loads(line)
        if "frozen" in record:
            heads += record["seconds"]
        elif record.get("seconds") is not None:  # cumulative, also over interruptions
            networks[record.get("part", "")] = record["seconds"]
    return round(heads + sum(networks.values()), 3)


def domain_errors(table: Table) -> dict[str, float]:
    """Return the mean error of the headlines of each domain."""
    errors: dict[str, list[float]] = {}
    for row in table.headlines():
        errors.setdefault(row.domain, []).append(as_error(row.kind, row.value))
    return {name: statistics.fmean(values) for name, values in errors.items()}


# -- sweeps


def sweep(
    recipe: Recipe,
    variations: Sequence[tuple[str, Sequence[str]]],
    seeds: Sequence[int],
    *,
    resume: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Train every variation with every seed, and choose one by validation scores.

    Args:
        recipe: The recipe; the runs are in folders below its `out`.
        variations: Labels and changed keys, from `Recipe.grid`; the label "" has no folder.
        seeds: The seeds.
        resume: Continue unfinished runs.
        device: Where to train; None: a GPU if there is one.

    Returns:
        The content of sweep.json: for each variation its validation score (mean over seeds), and
        its test scores with each seed.
    """
    if len(set(seeds)) < len(seeds):
        raise BadInput("expected each seed only once", got=", ".join(map(str, seeds)))
    top = recipe.out_folder
    check_folder(top, "the folder of a sweep", _is_of_sweep)
    recipes = {}
    for label, sets in variations:
        for seed in seeds:
            out = inline(str(PurePosixPath(recipe.out) / folder_of(label, seed)))
            name = f"{label or recipe.name}, seed {seed}"
            recipes[name] = recipe.with_sets([*sets, f"seed={seed}", f"out={out}"])
    runs = list(train_all(recipes, resume=resume, device=device).values())
    count = len(seeds)
    groups = {
        label: [run.scores for run in runs[i * count : (i + 1) * count]]
        for i, (label, _) in enumerate(variations)
    }
    vals = {label: [Table.from_json(s["val"]) for s in group] for label, group in groups.items()}
    score = _comparable_score([table for tables in vals.values() for table in tables])
    results = [
        {
            "label": label,
            "sets": list(sets),
            **_summary([score(table) for table in vals[label]], groups[label]),
            "runs": [str(folder_of(label, seed)) for seed in seeds],
        }
        for label, sets in variations
    ]
    best = min(results, key=lambda result: float(result["val"]))
    document = {
        "recipe": recipe.name,
        "seeds": list(seeds),
        "chosen": best["label"],
        "by": "the lowest mean validation score; test scores are not used",
        "variations": results,
    }
    write_atomic(top / SWEEP, json.dumps(document, indent=1) + "\n")
    return document


def _is_of_sweep(path: Path) -> bool:
    """Return whether a name in the folder of a sweep is its own."""
    if path.name == SWEEP or SEED.fullmatch(path.name):
        return True
    return path.is_dir() and all(SEED.fullmatch(inner.name) for inner in path.iterdir())


def folder_of(label: str, seed: int) -> PurePosixPath:
    """Return the folder of a run below the recipe's `out`; a label is a single folder name."""
    plain = re.sub(r'[/\\:*?"<>|]', "_", label).strip(". ")
    return PurePosixPath(plain[:150]) / f"seed-{seed}"


def _comparable_score(tables: Sequence[Table]) -> Callable[[Table], float]:
    """Return a function for the mean error of a table over its domains.

    If kinds of tasks differ, each error is divided by its mean over all tables. (The score of a
    single run is relative to its own first evaluation and not comparable between runs.)
    """
    errors: dict[str, list[float]] = {}
    for table in tables:
        for row in table.headlines():
            errors.setdefault(unit_of(row), []).append(as_error(row.kind, row.value))
    means = {name: statistics.fmean(values) for name, values in errors.items()}
    return lambda table: statistics.fmean(error_by_domain(table.headlines(), means).values())


def _summary(vals: Sequence[float], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the validation score, and mean and std of each test headline over the seeds."""
    values: dict[str, list[float]] = {}
    for document in scores:
        for row in Table.from_json(document["test"]).headlines():
            values.setdefault(f"{unit_of(row)}/{row.metric}", []).append(row.value)
    return {
        "val": statistics.fmean(vals),
        "val_by_seed": list(vals),
        "test": {
            name: {
                "mean": statistics.fmean(each),
                "std": statistics.stdev(each) if len(each) > 1 else None,
                "by_seed": each,
            }
            for name, each in values.items()
        },
    }
