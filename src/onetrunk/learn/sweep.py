"""Several runs of one recipe: seeds, a grid of settings, or both; chosen on validation alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from onetrunk.errors import wrong
from onetrunk.learn.train import train_recipe
from onetrunk.measure.table import Table
from onetrunk.progress import say
from onetrunk.recipe import Recipe
from onetrunk.recipe.toml import inline
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run import SCORES

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
        raise wrong("each seed once", came=", ".join(map(str, seeds)))
    top, results = recipe.out_folder, []
    for label, sets in variations:
        runs = {}
        for seed in seeds:
            below = PurePosixPath(label) / f"seed-{seed}"
            folder = top / below
            out = inline(str(PurePosixPath(recipe.out) / below))
            one = recipe.with_sets([*sets, f"seed={seed}", f"out={out}"])
            if resume and (folder / SCORES).exists():
                scores = json.loads((folder / SCORES).read_text("utf-8"))
            else:
                say(f"{label or recipe.name}, seed {seed}: {folder}")
                scores = train_recipe(one, resume=resume, device=device).scores
            runs[seed] = scores
        results.append({"label": label, "sets": list(sets), **summed_up(runs, label)})
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


def summed_up(runs: Mapping[int, Mapping[str, Any]], label: str) -> dict[str, Any]:
    """The validation score that chooses, and each test headline's mean and spread over seeds."""
    values: dict[str, list[float]] = {}
    for scores in runs.values():
        for row in Table.from_json(scores["test"]).rows:
            if row.headline:
                values.setdefault(f"{row.domain}/{row.task}/{row.metric}", []).append(row.value)
    by_seed = [
        statistics.fmean(best["score"] for best in scores["best"].values())
        for scores in runs.values()
    ]
    return {
        "val": statistics.fmean(by_seed),
        "val_by_seed": by_seed,
        "test": {
            unit: {
                "mean": statistics.fmean(found),
                "std": statistics.stdev(found) if len(found) > 1 else None,
                "by_seed": found,
            }
            for unit, found in values.items()
        },
        "runs": [str(PurePosixPath(label) / f"seed-{seed}") for seed in runs],
    }
