"""`onetrunk train`: train the networks of a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.options import AsJson, DeviceName
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config import Recipe, named_recipes
from onetrunk.config.check import parse_and_check
from onetrunk.config.optimizers import DEFAULT_KEYS
from onetrunk.config.recipe import FILE, read_text
from onetrunk.config.sets import grid as varied
from onetrunk.config.to_toml import inline
from onetrunk.display import scaled
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.table import Table, number
from onetrunk.progress import say
from onetrunk.runs.dry_run import dry_run
from onetrunk.runs.environment import NAME as ENVIRONMENT
from onetrunk.runs.experiment import sweep
from onetrunk.runs.forgetting import describe, score_changes
from onetrunk.runs.open import Run
from onetrunk.runs.train import train_recipe
from onetrunk.store.places import check_writable, relative_to

NOTES = """With sharing = "none" in the recipe, a separate network is trained for each domain."""
EXAMPLES = """# folders of images, without a recipe
onetrunk train --domain shop=folder:photos/shop \\
    --domain digits=pocket:digits --out runs/mine
# a named recipe; `onetrunk recipes` lists them
onetrunk train pocket-quick
# estimate steps, time, memory and disk without training
onetrunk train recipe.toml --dry-run
# change settings of the recipe
onetrunk train recipe.toml --set train.lr=0.01 --set domains.shop.size=96
# of all domains
onetrunk train recipe.toml --set 'domains.*.size=48'
# a grid of settings and seeds; the best is chosen on validation
onetrunk train recipe.toml --set train.lr=0.1,0.03 --seeds 0,1
# continue after Ctrl-C, a crash or a full disk
onetrunk train runs/shop/recipe.toml --resume
"""


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="File or name of a recipe, or folder of a run.")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SOURCE, instead of a recipe; repeatable."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting, KEY=VALUE; KEY=A,B trains a grid; repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Train with each of these seeds, such as 0,1,2.")
    ] = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Estimate time, memory and disk from a few images and steps; write nothing.",
        ),
    ] = False,
    device: DeviceName = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the networks of a recipe."""
    numbers = None if seeds is None else seeds_of(seeds)
    resolved, grid = _recipe(recipe, domain or [], sets or [], out, resume)
    if dry:
        if numbers is not None or len(grid) > 1:
            raise BadInput(
                "--dry-run takes one run", got="several", try_="leave out --seeds and grids"
            )
        _show_dry(dry_run(resolved, device), as_json)
        return
    if out is not None:
        check_writable(out)  # its path in the error is the one that was typed
    try:
        if numbers is None and len(grid) == 1:
            run = train_recipe(resolved, resume=resume, device=device)
            _show_run(run, as_json, resolved.init_folder)
        else:
            swept = sweep(resolved, grid, numbers or [resolved.seed], resume=resume, device=device)
            _show_sweep(swept, resolved, as_json)
    except KeyboardInterrupt:
        raise _interrupted(resolved, numbers is not None or len(grid) > 1) from None


def _interrupted(recipe: Recipe, several: bool) -> Failed:
    """Return the error for Ctrl-C, with the command that continues."""
    if several:
        return Failed("interrupted; finished work is kept", try_="the same command with --resume")
    again = recipe.out_folder / FILE
    if not again.exists():
        return Failed("interrupted before the training began; no run was written")
    command = f"onetrunk train {shlex.quote(str(again))} --resume"
    return Failed("interrupted; finished work is kept", try_=command)


def _recipe(
    word: str | None,
    domains: Sequence[str],
    sets: Sequence[str],
    out: Path | None,
    resume: bool = False,
) -> tuple[Recipe, list[tuple[str, list[str]]]]:
    """Return the recipe with the fixed settings applied, and the grid of varied settings."""
    grid = varied(sets)
    fixed = grid[0][1] if len(grid) == 1 else [s for s in sets if len(varied([s])) == 1]
    if (word is None) != bool(domains):
        raise BadInput(
            "expected either a recipe or --domain NAME=SOURCE",
            got="both" if word else "neither",
            available=named_recipes(),
            try_="onetrunk train pocket-quick, or onetrunk train --domain shop=folder:photos",
        )
    if word is None:
        chosen = Recipe.from_domains(domains).with_sets(fixed)
    else:
        chosen = recipe_of(word, fixed)
    if out is None and resume and word is not None and word not in named_recipes():
        out = _run_folder(word)
    if out is not None:
        chosen = chosen.with_sets([f"out={inline(relative_to(out, chosen.root))}"])
    for _, one in grid:
        chosen.with_sets(one)  # check all combinations before the first run
    return chosen, grid


def _run_folder(word: str) -> Path | None:
    """Return the folder of the run that a recipe lies in: the run to resume, also after a move."""
    folder = read_text(word)[1].parent
    return folder if (folder / ENVIRONMENT).is_file() else None


def recipe_of(word: str, sets: Sequence[str]) -> Recipe:
    """Read a recipe by its name, file or run folder; raise one error that lists all problems."""
    if word in named_recipes():
        return parse_and_check(named_recipes()[word], Path(), sets, word)
    text, place = read_text(word)
    return parse_and_check(text, place.parent, sets, place.name)


def seeds_of(text: str) -> list[int]:
    """Parse seeds such as `0,1,2`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise BadInput(
            "--seeds expects whole numbers separated by commas", got=text, try_="--seeds 0,1"
        )
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise BadInput("--seeds names a seed twice", got=text)
    if max(numbers) >= 2**63:
        raise BadInput("--seeds expects numbers below 2^63", got=text, try_="--seeds 0,1")
    return numbers


def _show_run(run: Run, as_json: bool, init: Path | None) -> None:
    folder = shlex.quote(str(run.folder))
    moved = [] if init is None else score_changes(init, run.folder)
    if as_json:
        document = {"run": str(run.folder), "scores": run.scores}
        print_json(document | ({"forgetting": [asdict(each) for each in moved]} if moved else {}))
        return
    table = Table.from_json(run.scores["test"])
    console().print(table)
    for part, best in run.scores["best"].items():
        of = f" of {part}" if part else ""
        how = (
            "chosen on validation"
            if best["score"] is not None
            else "the last one, as there are no labels"
        )
        print(f"best{of}: step {best['step']}, {how}")
    if moved:
        print(f"compared with {init}, on the same test images:")
    for each in moved:
        print(f"  {describe(each)}")
    print(f"wrote {run.folder}: model/, scores.json, metrics.jsonl, recipe.toml")
    first = table.domains[0] if table.domains else "NAME"
    suggest(f"onetrunk eval {folder}", f"onetrunk predict {folder} IMAGE --domain {first}")


def _show_dry(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for line in (*found["choices"], *(f"note: {warning}" for warning in found["warnings"])):
        say(line)
    grid = Grid(title=escape(f"{found['name']} on {found['device']}"), title_justify="left")
    grid.add_column("network for")
    for column in ("steps", "images/s", "time", "parameters", "model", "checkpoint"):
        grid.add_column(column, justify="right")
    for part, cost in found["parts"].items():
        grid.add_row(
            escape(part or ", ".join(cost["domains"])),
            f"{cost['steps']:,}",
            f"{cost['images_per_s']:,.0f}",
            clock(cost["seconds"]),
            scaled(cost["parameters"]),
            scaled(cost["model_bytes"], "B"),
            scaled(cost["checkpoint_bytes"], "B"),
        )
    console().print(grid)
    data = Grid(title="images, from a sample of each split", title_justify="left")
    data.add_column("domain")
    for column in ("images", "to decode", "cache"):
        data.add_column(column, justify="right")
    for name, part in found["data"].items():
        cached = part["cached"]
        data.add_row(
            escape(name),
            f"{part['images']:,}",
            "in the cache" if cached else f"about {clock(part['decode_seconds'])}",
            "" if cached else scaled(part["cache_bytes"], "B"),
        )
    console().print(data)
    print(_optimizer_line(found["optimizer"]))
    memory = found["memory_bytes"]
    kept = "" if memory is None else f", {scaled(memory, 'B')} of memory"
    seconds = found["seconds"] + found["decode_seconds"]
    size = scaled(found["disk_bytes"] + found["cache_bytes"], "B")
    print(f"total: about {clock(seconds)}{kept}, {size} on disk")
    print(f"Nothing was written. Without --dry-run the run is written to {found['out']}.")


def _optimizer_line(values: Mapping[str, Any]) -> str:
    """Format the optimizer's values in force, and which of them were set."""
    parts = [
        f"{key} {values[key]:g}{'' if key in values['defaults'] else ' (set)'}"
        for key in DEFAULT_KEYS
        if key in values
    ]
    of = "random weights" if values["start"] == "scratch" else "a pretrained trunk"
    return f"optimizer: {values['name']}, {', '.join(parts)}; the rest are its defaults for {of}"


def _show_sweep(found: Mapping[str, Any], recipe: Recipe, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    several = len(found["seeds"]) > 1
    seeds = ", ".join(map(str, found["seeds"]))
    title = escape(f"{found['recipe']}, seeds {seeds}" if several else str(found["recipe"]))
    grid = Grid(title=title, title_justify="left")
    grid.add_column("settings" if len(found["variations"]) > 1 else "run")
    grid.add_column("val", justify="right")
    units = list(found["variations"][0]["test"])
    for unit in units:
        grid.add_column(escape(unit.replace("/", " ")), justify="right")
    for each in found["variations"]:
        mark = "chosen: " if each["label"] == found["chosen"] and each["label"] else ""
        cells = [number(each["val"], "%")]
        for unit in units:
            mean, std = each["test"][unit]["mean"], each["test"][unit]["std"]
            cells.append(number(mean, "%") + (f" ± {number(std, '%')}" if several else ""))
        grid.add_row(escape(mark + (each["label"] or found["recipe"])), *cells)
    console().print(grid)
    print(f"val: {found['by']}; ± is the standard deviation over seeds" if several else found["by"])
    best = next(v for v in found["variations"] if v["label"] == found["chosen"])
    run = recipe.out_folder / best["runs"][0]
    print(f"wrote {recipe.out_folder}: sweep.json, and a run in each folder")
    suggest(f"onetrunk eval {shlex.quote(str(run))}")


def clock(seconds: float) -> str:
    """Format a duration."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
