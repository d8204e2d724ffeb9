"""Several runs of one recipe: seeds, a grid of settings, or both; chosen on validation alone."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from onetrunk.config import Recipe
from onetrunk.config.to_toml import inline
from onetrunk.errors import BadInput
from onetrunk.eval.metrics import as_error
from onetrunk.eval.table import Table
from onetrunk.progress import say
from onetrunk.runs.train import train_recipe
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import SCORES, RunFolder
from onetrunk.train.selection import error_by_domain, unit_of

NAME = "sweep.json"


def sweep(
    recipe: Recipe,
    variations: Sequence[tuple[str, Sequence[str]]],
    seeds: Sequence[int],
    *,
    resume: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Run every variation with every seed, each into a folder of its own below `recipe.out`.

    `variations`: (label, sets), as `Recipe.grid` makes them; the label "" adds no folder. What is
    finished already is not run again when it resumes. Returns, and writes as sweep.json, for each
    variation the validation score that chooses (mean over seeds), and the test scores by seed.
    """
    if len(set(seeds)) < len(seeds):
        raise BadInput("each seed once", got=", ".join(map(str, seeds)))
    top = recipe.out_folder
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for label, sets in variations:
        found[label] = {}
        for seed in seeds:
            below = place_of(label, seed)
            out = inline(str(PurePosixPath(recipe.out) / below))
            one = recipe.with_sets([*sets, f"seed={seed}", f"out={out}"])
            scores = finished(one) if resume else None
            if scores is None:
                say(f"{label or recipe.name}, seed {seed}: {top / below}")
                scores = dict(train_recipe(one, resume=resume, device=device).scores)
            found[label][seed] = scores
    vals = {label: validation(runs) for label, runs in found.items()}
    scores_of = compared([table for tables in vals.values() for table in tables])
    results = [
        {"label": label, "sets": list(sets)}
        | summed_up([scores_of(table) for table in vals[label]], found[label])
        | {"runs": [str(place_of(label, seed)) for seed in seeds]}
        for label, sets in variations
    ]
    best = min(results, key=lambda result: float(result["val"]))
    document = {
        "recipe": recipe.name,
        "seeds": list(seeds),
        "chosen": best["label"],
        "by": "the lowest mean validation score; test scores took no part",
        "variations": results,
    }
    write_atomic(top / NAME, json.dumps(document, indent=1) + "\n")
    return document


def place_of(label: str, seed: int) -> PurePosixPath:
    """Where a run lies below the recipe's `out`: one folder a label, whatever its values are."""
    plain = re.sub(r'[/\\:*?"<>|]', "_", label).strip(". ")
    return PurePosixPath(plain[:150]) / f"seed-{seed}"


def finished(one: Recipe) -> dict[str, Any] | None:
    """The scores of a run that is finished; a folder that holds another recipe's is refused."""
    folder = one.out_folder
    if not (folder / SCORES).exists():
        return None
    with RunFolder.open(folder, one.text_in(folder), resume=True):
        scores: dict[str, Any] = json.loads((folder / SCORES).read_text("utf-8"))
    return scores


def validation(runs: Mapping[int, Mapping[str, Any]]) -> list[Table]:
    """What may choose."""
    return [Table.from_json(scores["val"]) for scores in runs.values()]


def compared(tables: Sequence[Table]) -> Callable[[Table], float]:
    """The score of each: the mean over domains, where kinds mix in multiples of the mean over all
    runs. (A run's own score then counts from its own first evaluation, so it compares with none.)
    """
    errors: dict[str, list[float]] = {}
    for table in tables:
        for row in table.headlines():
            errors.setdefault(unit_of(row), []).append(as_error(row.kind, row.value))
    ones = {name: statistics.fmean(values) for name, values in errors.items()}
    return lambda table: statistics.fmean(error_by_domain(table.headlines(), ones).values())


def summed_up(vals: Sequence[float], runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The validation score that chooses, and each test headline's mean and spread over seeds."""
    values: dict[str, list[float]] = {}
    for scores in runs.values():
        for row in Table.from_json(scores["test"]).headlines():
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
