"""`onetrunk unify`: from folders of images to one network and a report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.options import AsJson, DeviceName
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.cli.train import recipe_of
from onetrunk.config import Recipe, named_recipes
from onetrunk.config.to_toml import inline
from onetrunk.display import scaled
from onetrunk.errors import BadInput
from onetrunk.report.unify import TIME, Result, plain, unify_recipe
from onetrunk.runs.unify.dry_run import dry_run
from onetrunk.runs.unify.plan import parse_time
from onetrunk.store.places import relative_to
from onetrunk.train.console import duration

NOTES = """Trains a network for each domain, then one network for all of them, on labels and by
distillation; chooses by validation, and writes a report. The same command continues after an
interruption."""
EXAMPLES = """onetrunk unify --domain shop=folder:photos/shop --domain parts=folder:photos/parts
# how long everything may take
onetrunk unify --domain shop=folder:photos/shop --domain digits=pocket:digits \\
    --time 20m --out runs/mine
# settings as in a recipe
onetrunk unify --domain shop=folder:photos/shop --domain digits=pocket:digits \\
    --set 'domains.*.size=64' --set train.batch=16
"""


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="File or name of a recipe, instead of --domain.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(help="NAME=SOURCE; repeatable.")] = None,
    trunk: Annotated[
        str | None, typer.Option(help="Architecture to start from, such as timm/resnet18.")
    ] = None,
    time: Annotated[str, typer.Option(help="How long everything may take.")] = TIME,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of all stages, KEY=VALUE; repeatable."),
    ] = None,
    device: DeviceName = None,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan with estimated times; write nothing."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the result.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn folders of images into one network and a report."""
    seconds = parse_time(time)
    resolved = _recipe(recipe, domain or [], sets or [], trunk, out)
    if dry:
        _show_plan(resolved, seconds, device, as_json)
        return
    result = unify_recipe(
        resolved, seconds=seconds, device=device, command=shlex.join(["onetrunk", *sys.argv[1:]])
    )
    if as_json:
        print_json(plain(result))
    else:
        _show(result)


def _recipe(
    word: str | None,
    domains: Sequence[str],
    sets: Sequence[str],
    trunk: str | None,
    out: Path | None,
) -> Recipe:
    """Return the recipe of all stages."""
    if (word is None) != bool(domains):
        raise BadInput(
            "expected either a recipe or --domain NAME=SOURCE",
            got="both" if word else "neither",
            available=named_recipes(),
            try_="onetrunk unify --domain shop=folder:photos --domain parts=folder:parts",
        )
    chosen = [f"trunk.arch={inline(trunk)}"] if trunk is not None else []
    if trunk is not None and trunk.startswith("timm/"):
        chosen.append("trunk.pretrained=true")
    changed = [*chosen, *sets]
    recipe = (
        Recipe.from_domains(domains).with_sets(changed)
        if word is None
        else recipe_of(word, changed)
    )
    if out is not None:
        recipe = recipe.with_sets([f"out={inline(relative_to(out, recipe.root))}"])
    return recipe


def _show(result: Result) -> None:
    folder = shlex.quote(str(result.run.folder))
    console().print(_ladder(result))
    for name, reason in result.own.items():
        print(f"{name} keeps its own network: {reason}")
    print(f"chosen by validation: {result.chosen}; {duration(result.seconds)}")
    print(f"wrote {result.run.folder}: model/, scores.json, report.html, stages/")
    print(f"open {result.page} in a browser")
    first = result.run.names[0]
    suggest(f"onetrunk predict {folder} IMAGE --domain {first}", f"onetrunk info {folder}")


def _ladder(result: Result) -> Grid:
    """Return the table of all networks."""
    grid = Grid(title="test errors and sizes", title_justify="left")
    grid.add_column("networks")
    units = list(result.rows[0].errors)
    short = len({unit.partition("/")[0] for unit in units}) == len(units)
    for column in ("size", "mean", *(u.partition("/")[0] if short else u for u in units)):
        grid.add_column(escape(column), justify="right")
    for row in result.rows:
        grid.add_row(
            f"{row.name} (chosen)" if row.chosen else row.name,
            scaled(row.bytes, "B"),
            "" if row.mean is None else f"{row.mean:.2f}",
            *(row.errors.get(unit, "") for unit in units),
            style="bold" if row.chosen else "",
        )
    return grid


def _show_plan(recipe: Recipe, seconds: float, device: str | None, as_json: bool) -> None:
    found = dry_run(recipe, seconds, device)
    if as_json:
        print_json(found)
        return
    for line in found["warnings"]:
        print(f"note: {line}")
    grid = Grid(title="plan", title_justify="left")
    grid.add_column("stage")
    grid.add_column("about", justify="right")
    for name, each in found["seconds"].items():
        grid.add_row(name, duration(each))
    console().print(grid)
    print(
        f"{found['steps']:,} steps for each network, {found['epochs']:.1f} passes over the largest "
        f"domain; about {duration(found['total'])} of {duration(seconds)}"
    )
    print(f"Nothing was written. Without --dry-run the result is written to {found['out']}.")
