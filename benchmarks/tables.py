"""Train and compare rows of recipes: one network or many, norms, sharing, distillation, weighting.

    python benchmarks/tables.py one-or-many norms … [--seeds 0,1,2] [--out runs/evidence] [--show]

Every row is a run: an interrupted one continues, and a finished one is not run again. The figures
are written to benchmarks/results/tables.json: test scores by domain (or task) and seed, of weights
selected on validation, and differences of the mean over domains with paired intervals. Nothing is
timed. `--show` prints the stored figures without running anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Screen
from rows import TABLES, Row, place, rows
from table import measured_on

from onetrunk.config import Recipe
from onetrunk.config.to_toml import inline
from onetrunk.data.domain import Domain
from onetrunk.eval.budget import budget
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.eval.floors import neighbour_floor
from onetrunk.eval.intervals import percentiles, replicates
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.summary import decathlon_score, delta_mtl
from onetrunk.eval.table import Better, Table
from onetrunk.nn.card import Card
from onetrunk.nn.saving import models_of
from onetrunk.nn.universal import Universal
from onetrunk.runs.merging import choose_scale
from onetrunk.runs.train import train_recipe

RESULTS = Path(__file__).parent / "results" / "tables.json"
DENSE = "rooms"  # a table by task, with Δ as its summary
BETTER: Mapping[str, Better] = {"segment": "higher", "depth": "lower", "normals": "lower"}


@dataclass(frozen=True)
class Done:
    """The result of a row with one seed."""

    models: Mapping[str, Universal]
    domains: list[Domain]
    table: Table
    outcomes: Outcomes


def run(name: str, recipe: Recipe | None, seed: int, out: Path, first: Done | None) -> Done:
    """Run a row with one seed; without a recipe, merge the specialists of the first row."""
    if recipe is None:
        if first is None:
            raise ValueError("nothing to merge yet")
        folder = place(out, "pocket-specialists", seed)
        merged = choose_scale(folder, first.domains, recalibrated=name.endswith("recalibrated"))
        evaluated = evaluate_split(merged.model, first.domains, "test")
        return Done({"": merged.model}, first.domains, evaluated.table(), evaluated.outcomes())
    folder = place(out, name, seed)
    sets = [f"name={name}", f"seed={seed}", f"out={inline(str(folder))}"]
    chosen = recipe.with_sets(sets)
    done = train_recipe(chosen, resume=True)
    domains = chosen.make_domains()
    kept = folder / "outcomes.safetensors"
    if not kept.exists():  # of an older run
        evaluate_split(models_of(folder), domains, "test").outcomes().save(kept)
    return Done(done.models, domains, done.table, Outcomes.open(kept))


def main() -> None:
    """Run the requested rows one after the other; print the tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--only", default="", help="rows, separated by commas")
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    for table in args.tables:
        for seed in [] if args.show else [int(seed) for seed in args.seeds.split(",")]:
            done: dict[str, Done] = {}
            for name, recipe in rows(table, args.out, seed):
                if only and name not in only:
                    continue
                first = next(iter(done.values()), None)
                done[name] = run(name, recipe, seed, args.out, first)
                keep(table, name, recipe, seed, done)
        show(table, rows(table, args.out, 0))


def keep(table: str, name: str, recipe: Recipe | None, seed: int, done: Mapping[str, Done]) -> None:
    """Add the scores of a row to the file, and its differences from the rows before it."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    here = kept.setdefault(table, {})
    here["about"] = measured_on()
    row = here.setdefault("rows", {}).setdefault(name, {"seeds": {}})
    mine = done[name]
    if recipe is not None:
        row["steps"], row["batch"] = recipe.train.steps, recipe.train.batch
    row["parameters"] = sum(budget(model).universal.parameters for model in mine.models.values())
    row["seeds"][str(seed)] = {
        (r.task if table == DENSE else r.domain): r.value for r in mine.table.rows if r.headline
    }
    if table != DENSE:
        against = row.setdefault("mean_minus", {})
        for other, theirs in list(done.items())[:2]:
            if other != name:
                against.setdefault(other, {})[str(seed)] = apart(mine.outcomes, theirs.outcomes)
        floor = kept.setdefault("nearest-neighbour", {})
        for domain in mine.domains:
            if domain.name not in floor:
                result = neighbour_floor(domain, Card.of(domain, "none"))
                floor[domain.name] = result.table().value(domain.name)
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def apart(ours: Outcomes, theirs: Outcomes) -> list[float]:
    """Return the difference of the mean headline over domains, and its paired 95 % interval."""
    mine, base = replicates(ours), replicates(theirs)
    keys = [key for key in mine if key in base]
    draws = np.mean([mine[key] - base[key] for key in keys], axis=0)
    value = statistics.fmean(
        ours.tasks[key].headline() - theirs.tasks[key].headline() for key in keys
    )
    return [value, *percentiles(draws)]


def show(name: str, order: list[Row]) -> None:
    """Print a table."""
    kept = json.loads(RESULTS.read_text())[name]
    names = [row for row, _ in order if row in kept["rows"]]
    columns = sorted({d for row in names for seed in by_seed(kept, row).values() for d in seed})
    title = f"{name}: test scores (mean over seeds)"
    screen = Screen(title=title, title_justify="left")
    last = ["Δ, %"] if name == DENSE else ["mean", "score", "minus the second row (95 %)"]
    for column in ("", "seeds", "parameters", *columns, *last):
        screen.add_column(column, justify="right" if column else "left")
    for row in names:
        seeds = by_seed(kept, row)
        means = {
            column: statistics.fmean(found[column] for found in seeds.values())
            for column in columns
            if all(column in found for found in seeds.values())
        }
        shown = [f"{means[c]:.2f}" if c in means else "" for c in columns]
        if name == DENSE:
            end = [gain(kept, names[0], row)]
        else:
            mean = f"{statistics.fmean(means.values()):.2f}"
            end = [mean, against(kept, names[0], row), interval(kept, names[1], row)]
        screen.add_row(row, str(len(seeds)), f"{kept['rows'][row]['parameters']:,}", *shown, *end)
    Console(width=220).print(screen)


def against(kept: dict[str, Any], base: str, row: str) -> str:
    """Return the decathlon score relative to the first row, the mean over common seeds."""
    mine, theirs = by_seed(kept, row), by_seed(kept, base)
    scores = []
    for seed in mine.keys() & theirs.keys():
        same = {domain: theirs[seed][domain] for domain in mine[seed]}
        scores.append(decathlon_score(mine[seed], same))
    return f"{statistics.fmean(scores):.0f} of {250 * len(next(iter(mine.values())))}"


def gain(kept: dict[str, Any], base: str, row: str) -> str:
    """Return Δ relative to the first row, the mean over common seeds."""
    mine, theirs = by_seed(kept, row), by_seed(kept, base)
    found = [
        delta_mtl(
            {task: (value, BETTER[task]) for task, value in mine[seed].items()},
            {task: (value, BETTER[task]) for task, value in theirs[seed].items()},
        )
        for seed in sorted(mine.keys() & theirs.keys())
    ]
    return f"{statistics.fmean(found):+.2f}"


def interval(kept: dict[str, Any], base: str, row: str) -> str:
    """Return the difference from the mean of another row, with its interval, for the first seed."""
    found = kept["rows"][row].get("mean_minus", {}).get(base, {})
    if not found:
        return ""
    value, low, high = found[min(found)]
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def by_seed(kept: dict[str, Any], row: str) -> dict[str, dict[str, float]]:
    """Return the scores of a row by seed and by domain or task."""
    found: dict[str, dict[str, float]] = kept["rows"][row]["seeds"]
    return found


if __name__ == "__main__":
    main()
