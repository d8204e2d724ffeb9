"""`onetrunk compare`: the methods of the Decathlon over any list of new domains, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean as mean
from typing import Annotated, Any

import typer
from rich.table import Table as Grid

from onetrunk.cli.output import console, print_json
from onetrunk.cli.train import seeds_of
from onetrunk.config import Recipe
from onetrunk.config.sets import apply_sets
from onetrunk.config.to_toml import inline
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.budget import scaled
from onetrunk.nn.saving import load
from onetrunk.runs.compare import NAME, compare
from onetrunk.runs.compare_table import in_percent, old_mean, scores
from onetrunk.runs.pack_store import check_run
from onetrunk.train.interrupt import Stopped

NOTES = """Methods: packs on the run's trunk (feature-extractor, norm-only, series,
parallel, parallel-low-rank, lora), one network for each new domain (scratch,
fine-tune, lwf), and one network for all domains (joint, distilled,
distilled-parallel). The run itself is not changed. Finished rows are kept:
run the same command again to continue."""
EXAMPLES = """onetrunk compare runs/shop --domain digits=pocket:digits \\
    --domain flags=pocket:flags
# some of the methods only
onetrunk compare runs/shop --domain x-rays=folder:x-rays \\
    --methods scratch,fine-tune,parallel
onetrunk compare runs/shop --domain flags=pocket:flags \\
    --set train.steps=500 --seeds 0,1,2
"""
TABLES = ("domains", "train")


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    domain: Annotated[list[str], typer.Option(help="A new domain, NAME=SOURCE; repeatable.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods with commas between them; `onetrunk recipes` lists them. Default: all."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting: train.KEY=… or domains.NAME.KEY=…; repeatable."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds with commas between them.")] = "0",
    out: Annotated[Path, typer.Option(help="Folder for the runs of the methods.")] = Path(
        "runs/compare"
    ),
    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda, cuda:1 or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Learn what is asked for, and show the table."""
    asked = Recipe.from_domains(domain, "compare")
    said: Mapping[str, Any] = apply_sets({"train": {}}, sets or [])
    for key in said:
        if key not in TABLES:
            raise BadInput(
                "--set: unknown key", got=key, available=("train", "domains.NAME"),
                try_="methods say the rest: onetrunk recipes methods",
            )  # fmt: skip
    check_run(run)
    trunk = load(run).trunk
    like = [f"trunk.arch={inline(trunk.arch)}", f"trunk.norm={inline(trunk.norm)}"]
    checked = asked.with_sets([*like, *(sets or [])]).check()
    names = [name.strip() for name in methods.split(",")] if methods else []
    try:
        found = compare(
            run, checked.domains, out,
            methods=names, seeds=seeds_of(seeds), train=said["train"], device=device,
        )  # fmt: skip
    except Stopped as stop:  # a row's own command would end that row alone
        raise Stopped(stop.said, "the same command goes on") from None
    except KeyboardInterrupt:
        raise Failed("stopped; what was done is kept: the same command goes on") from None
    if as_json:
        print_json(found)
    else:
        show(found)
        print(f"wrote {out / NAME}")
    if found["failed"]:
        raise Failed(
            f"diverged, so without a row: {'; '.join(found['failed'])}; try: the same with "
            "--set train.clip=1 or a lower train.lr, and another --out"
        )


def show(document: Mapping[str, Any]) -> None:
    """One table: errors, their mean and score, the old domains, sizes and seconds."""
    percent = in_percent(document)
    base, points = scores(document)
    domains, kinds = list(document["domains"]), "test errors, mean over seeds"
    grid = Grid(title=f"new domains on {document['run']}: {kinds}", title_justify="left")
    grid.add_column("", no_wrap=True)
    for column in [
        *domains, *(["mean"] if percent else []), *(["score"] if points else []),
        "old domains", "× one network", "per domain", "seconds",
    ]:  # fmt: skip
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
        print(f"score: {base} has {points[base]:.0f}")
    print(
        "old domains: the mean error of the run's own in percent, where the method answers for them"
    )
    print(
        "per domain: what each new one adds in bytes; of one network for all, its pack; "
        "seconds are those of learning, of one network for all the whole, without its teachers'"
    )
