"""The tables of evidence: one network against many, the six norms, the ways of sharing.

    python benchmarks/tables.py one-or-many norms sharing [--seeds 0,1,2] [--out runs/evidence]

Every row is a run that goes on where it was stopped; a finished one is not run again. The figures
land in benchmarks/results/tables.json: test errors by domain and seed, of weights chosen on
validation. Nothing here is timed, so rows may run beside other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as Screen

from onetrunk.learn.train import Run, train_recipe
from onetrunk.measure.budget import budget
from onetrunk.measure.neighbour import neighbour_error
from onetrunk.measure.summary import decathlon_score
from onetrunk.recipe import Recipe
from onetrunk.recipe.toml import inline

RESULTS = Path(__file__).parent / "results" / "tables.json"
FIVE = ("creatures", "digits", "emoji", "fashion", "optdigits")
THREE = ("digits", "fashion", "optdigits")  # ten classes each
NORMS = ("shared", "shared-batch", "domain-moments", "domain", "instance", "instance-domain")
Row = tuple[str, Recipe]


def few(names: Iterable[str], *sets: str) -> Recipe:
    """`pocket` over some of its domains, for a quarter of its steps."""
    recipe = Recipe.from_domains([f"{name}=pocket:{name}" for name in names], "few")
    train = ("train.optimizer=sgd", "train.lr=0.05", "train.batch=32", "train.steps=500")
    return recipe.with_sets(["trunk.arch=resnet20", *train, *sets])


def rows(table: str) -> list[Row]:
    """The rows of a table, by name; the first is what the others are held against."""
    if table == "one-or-many":
        alone = ("pocket-specialists", Recipe.named("pocket-specialists"))
        return [alone, ("pocket", Recipe.named("pocket"))]
    alone = ("few-specialists", few(FIVE, "trunk.sharing=none"))
    if table == "norms":
        return [alone, *((f"norm-{name}", few(FIVE, f"trunk.norm={name}")) for name in NORMS)]
    return [
        alone,
        ("norm-domain", few(FIVE, "trunk.norm=domain")),
        *(
            (
                f"partial-{stage}",
                few(FIVE, "trunk.sharing=partial", f'trunk.own_stages=["{stage}"]'),
            )
            for stage in ("1", "3")
        ),
        ("deep-three", few(THREE)),
        ("full-three", few(THREE, "trunk.sharing=full", "trunk.pair=index")),
    ]


def run(name: str, recipe: Recipe, seed: int, out: Path) -> Run:
    """One row with one seed."""
    place = inline(str(out / name / f"seed-{seed}"))
    sets = [f"name={name}", f"seed={seed}", f"out={place}"]
    return train_recipe(recipe.with_sets(sets), resume=True)


def main() -> None:
    """Run what is asked for, one row after the other; print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("one-or-many", "norms", "sharing")
    parser.add_argument("tables", nargs="+", choices=names)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for seed in seeds:
        for table in asked.tables:
            for name, recipe in rows(table):
                keep(table, name, recipe, seed, run(name, recipe, seed, asked.out))
                show(table)


def keep(table: str, name: str, recipe: Recipe, seed: int, done: Run) -> None:
    """Add a row's errors to the kept figures."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    place = kept.setdefault(table, {})
    place["about"] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    row = place.setdefault("rows", {}).setdefault(name, {"seeds": {}})
    row["steps"], row["batch"] = recipe.train.steps, recipe.train.batch
    row["parameters"] = sum(budget(model).universal.parameters for model in done.models.values())
    row["seeds"][str(seed)] = {r.domain: r.value for r in done.table.rows if r.headline}
    floor = kept.setdefault("nearest-neighbour", {})
    for domain in recipe.make_domains():
        if domain.name not in floor:
            floor[domain.name] = neighbour_error(domain)
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def show(name: str) -> None:
    """One table on the screen."""
    kept = json.loads(RESULTS.read_text())[name]
    order = [row for row, _ in rows(name) if row in kept["rows"]]
    domains = sorted({d for row in order for seed in by_seed(kept, row).values() for d in seed})
    table = Screen(title=f"{name}: test errors, % (mean over seeds)", title_justify="left")
    for column in ("", "seeds", "parameters", *domains, "mean", "score"):
        table.add_column(column, justify="right" if column else "left")
    for row in order:
        seeds = by_seed(kept, row)
        means = {
            domain: statistics.fmean(found[domain] for found in seeds.values())
            for domain in domains
            if all(domain in found for found in seeds.values())
        }
        shown = [f"{means[d]:.2f}" if d in means else "" for d in domains]
        mean = statistics.fmean(means.values())
        points = against(kept, order[0], row)
        numbers = f"{kept['rows'][row]['parameters']:,}"
        table.add_row(row, str(len(seeds)), numbers, *shown, f"{mean:.2f}", points)
    Console(width=200).print(table)


def against(kept: dict[str, Any], base: str, row: str) -> str:
    """The decathlon score against the first row, mean over the seeds that both have."""
    mine, theirs = by_seed(kept, row), by_seed(kept, base)
    scores = []
    for seed in mine.keys() & theirs.keys():
        same = {domain: theirs[seed][domain] for domain in mine[seed]}
        scores.append(decathlon_score(mine[seed], same))
    return f"{statistics.fmean(scores):.0f} of {250 * len(next(iter(mine.values())))}"


def by_seed(kept: dict[str, Any], row: str) -> dict[str, dict[str, float]]:
    """A row's errors by seed and domain."""
    found: dict[str, dict[str, float]] = kept["rows"][row]["seeds"]
    return found


if __name__ == "__main__":
    main()
