"""`onetrunk compare`: methods of adding domains, or baselines of a recipe, in one table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean as mean
from typing import Annotated, Any

import typer
from rich.table import Table as Grid

from onetrunk.cli.options import AsJson, DeviceName
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.cli.train import recipe_of, seeds_of
from onetrunk.config import Recipe, Train
from onetrunk.config.check import check
from onetrunk.config.sets import apply_sets
from onetrunk.config.to_toml import inline
from onetrunk.display import scaled
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.table import number, spaced
from onetrunk.runs.compare import DEFAULT_OUT, Comparison, check_out, compare
from onetrunk.runs.compare_figures import in_percent, method_scores, old_mean
from onetrunk.runs.inherit import settings_like
from onetrunk.runs.open import Run
from onetrunk.store.run_folder import SCORES
from onetrunk.train.interrupt import Stopped

NOTES = """With --domain, each method trains the new domains, given a finished run: as packs on
its trunk (feature-extractor, norm-only, series, parallel, parallel-low-rank, lora),
as one network for each new domain (scratch, fine-tune, lwf), or as one network for
all domains (joint, distilled, distilled-parallel). The run itself is not changed.

Without --domain, baselines are trained on the domains of a recipe: frozen (linear
heads on the initial trunk), finetune (a full network for each domain) and joint
(one network in which only the heads belong to a domain). Each is a run beside that
of the recipe: OUT-frozen, OUT-finetune, OUT-joint.

Finished runs are not trained again: repeat the command to continue."""
EXAMPLES = """onetrunk compare runs/shop --domain digits=pocket:digits \\
    --domain flags=pocket:flags
# some of the methods only
onetrunk compare runs/shop --domain x-rays=folder:x-rays \\
    --methods scratch,fine-tune,parallel
onetrunk compare runs/shop --domain flags=pocket:flags \\
    --set train.steps=500 --seeds 0,1,2
# baselines of a recipe
onetrunk compare recipe.toml
onetrunk compare pocket-quick --methods frozen,joint --set train.steps=200
"""
TABLES = ("domains", "train")  # which --set may change, with --domain
ONE_SEED = "0"


def command(
    run: Annotated[
        str, typer.Argument(help="Folder of a finished run; without --domain, or a recipe.")
    ],
    domain: Annotated[
        list[str] | None, typer.Option(help="A new domain, NAME=SOURCE; repeatable.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods, separated by commas. Default: all.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting: train.KEY=… or domains.NAME.KEY=…; without --domain any key of "
            "the recipe; repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="With --domain: seeds, separated by commas.")
    ] = ONE_SEED,
    out: Annotated[
        Path, typer.Option(help="With --domain: folder for the runs of the methods.")
    ] = DEFAULT_OUT,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue interrupted runs; with --domain, always on.")
    ] = False,
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Train the methods and show the table."""
    names = [name.strip() for name in methods.split(",") if name.strip()] if methods else []
    if not domain:
        if seeds != ONE_SEED or out != DEFAULT_OUT:
            raise BadInput(
                "--seeds and --out need --domain",
                got=f"--seeds {seeds}" if seeds != ONE_SEED else f"--out {out}",
                try_="--set seed=… and --set out=…",
            )
        recipe = recipe_of(run, sets or [])
        try:
            found = compare(recipe, methods=names, resume=resume, device=device)
        except Stopped as stop:
            raise Stopped(stop.expected, try_="the same command with --resume") from None
        except KeyboardInterrupt:
            raise Failed(
                "interrupted; finished work is kept", try_="the same command with --resume"
            ) from None
        _show_baselines(found, recipe, run, sets, as_json)
        return
    try:
        result = _compare_new(Path(run), domain, names, sets or [], seeds, out, device)
    except Stopped as stop:  # its own command would continue only one run
        raise Stopped(stop.expected, try_="run the same command again") from None
    except KeyboardInterrupt:
        raise Failed(
            "interrupted; finished work is kept", try_="run the same command again"
        ) from None
    if as_json:
        print_json(result.document)
    else:
        _show_new(result.document)
        print(f"wrote {result.file}")
    if failed := result.document["failed"]:
        raise Failed(
            f"these runs diverged and have no row: {'; '.join(failed)}",
            try_="--set train.clip=1 or a lower train.lr, and another --out",
        )


def _compare_new(
    run: Path,
    domains: Sequence[str],
    methods: Sequence[str],
    sets: Sequence[str],
    seeds: str,
    out: Path,
    device: str | None,
) -> Comparison:
    """Check the new domains as those of a recipe, and compare the methods on them."""
    check_out(out)
    recipe = Recipe.from_domains(domains, "compare")
    given: Mapping[str, Any] = apply_sets({"train": {}}, sets)
    for key in given:
        if key not in TABLES:
            raise BadInput(
                "--set: unknown key",
                got=key,
                available=("train", "domains.NAME"),
                try_="onetrunk recipes methods shows the other settings",
            )
    opened = Run(run)
    opened.check_shared_trunk()
    trunk = opened.model.trunk
    like = [f"trunk.arch={inline(trunk.arch)}", f"trunk.norm={inline(trunk.norm)}"]
    wanted = recipe.with_sets([*like, *sets])
    known = opened.domain_settings
    new = [settings_like(each, opened.model, known) for each in wanted.make_domains()]
    checked = check(wanted.model_copy(update={"domains": tuple(each.settings for each in new)}))
    return compare(
        run,
        checked.domains,
        methods=methods,
        seeds=seeds_of(seeds),
        out=out,
        device=device,
        train=Train.of(given["train"], "train"),
    )


def _show_new(document: Mapping[str, Any]) -> None:
    """Show the errors, their mean and score, the errors of old domains, sizes and seconds."""
    percent = in_percent(document)
    base, points = method_scores(document)
    domains = list(document["domains"])
    title = f"new domains on {document['run']}: test errors, mean over seeds"
    grid = Grid(title=title, title_justify="left")
    grid.add_column("", no_wrap=True)
    columns = [*domains, *(["mean"] if percent else []), *(["score"] if points else [])]
    for column in [*columns, "old domains", "× one network", "per domain", "seconds"]:
        grid.add_column(column, justify="right")
    for name, seeds in document["rows"].items():
        rows = list(seeds.values())
        errors = [mean(row["errors"][d] for row in rows) for d in domains]
        old = old_mean(document, name)
        cells = [f"{error:.2f}" for error in errors]
        cells += [f"{mean(errors):.2f}"] if percent else []
        cells += [f"{points[name]:.0f}" if name in points else ""] if points else []
        cells += ["" if old is None else f"{old:.2f}"]
        cells += [f"{rows[0]['parameters'] / document['one']:.2f}"]
        cells += [scaled(mean(rows[0]["bytes"].values()), "B")]
        cells += [f"{mean(sum(row['seconds'].values()) / len(row['seconds']) for row in rows):.0f}"]
        grid.add_row(f"{name} ({len(rows)})" if len(rows) > 1 else name, *cells)
    console().print(grid)
    if points:
        print(f"score: relative to {base}, which has {points[base]:.0f}")
    print("old domains: mean error of the run's own domains in percent, if the method has them")
    print("per domain: bytes added by each new domain; for one network of all domains, its pack")
    print("seconds: training time per new domain, without teachers; of one network for all: total")


def _show_baselines(
    result: Comparison, recipe: Recipe, word: str, sets: Sequence[str] | None, as_json: bool
) -> None:
    """Show a row for each task and a column for each baseline, and suggest the next command."""
    if as_json:
        print_json(result.document)
        return
    console().print(baselines_table(result.document))
    print(f"wrote {result.file}")
    commands = [str(result.document["try"])]
    if not (recipe.out_folder / SCORES).exists():
        words = " ".join(f"--set {shlex.quote(one)}" for one in sets or [])
        commands.insert(0, f"onetrunk train {shlex.quote(word)} {words}".rstrip())
    suggest(*commands)


def baselines_table(document: Mapping[str, Any]) -> Grid:
    """Return the scores and costs of the baselines as a table."""
    runs: Mapping[str, Mapping[str, Any]] = document["runs"]
    grid = Grid(title=f"{document['recipe']}: baselines, scores on test")
    for column in ("domain", "task", "score"):
        grid.add_column(column)
    for method, run in runs.items():
        random = method == "frozen" and run["weights"] == "fresh"
        grid.add_column(f"{method} (random features)" if random else method, justify="right")
    for row in document["rows"]:
        values = [row["values"].get(method) for method in runs]
        grid.add_row(
            *(row["domain"], row["task"], row["metric"] + spaced(row["unit"])),
            *("" if value is None else number(value, row["unit"]) for value in values),
        )
    grid.add_section()
    means = [run["mean_error"] for run in runs.values()]
    if None not in means:
        grid.add_row("mean", "", "error", *(number(mean, "%") for mean in means))
    grid.add_row("parameters", "", "networks", *(f"{r['networks']:.2f}×" for r in runs.values()))
    grid.add_row("training", "", "seconds", *(f"{run['seconds']:,.0f}" for run in runs.values()))
    return grid
