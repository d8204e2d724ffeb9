"""`onetrunk add`: add a domain to a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.options import AsJson, DeviceName, FinishedRun
from onetrunk.cli.output import console, print_json, repeat, suggest
from onetrunk.config import Train
from onetrunk.config.add_recipe import AddSettings
from onetrunk.config.sets import apply_sets
from onetrunk.data.domain import Domain
from onetrunk.data.domain_settings import DomainSettings
from onetrunk.data.task import check_name
from onetrunk.display import scaled
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.eval.table import number
from onetrunk.runs.add import PREFIX, add, import_pack
from onetrunk.runs.change_domain import DomainResult

EXAMPLES = """onetrunk add runs/shop x-rays folder:photos/x-rays
# try all kinds of adapters, at most 5 % of the trunk's size
onetrunk add runs/shop x-rays folder:photos/x-rays --adapters auto \\
    --budget 5%
# a few images per class are enough: the method is chosen on held-out folds
onetrunk add runs/shop birds folder:five-birds
onetrunk add runs/shop x-rays folder:x-rays --set train.steps=800 \\
    --set domains.x-rays.size=96
# a pack that was trained elsewhere on the same trunk
onetrunk add runs/shop x-rays pack:x-rays.pack
"""


def command(
    run: FinishedRun,
    name: Annotated[str, typer.Argument(help="Name of the new domain.")],
    source: Annotated[
        str, typer.Argument(help="Source of its images, such as folder:PATH; or pack:FILE.")
    ],
    adapters: Annotated[
        str | None,
        typer.Option(
            help="parallel, series, lora, norm, none (head only) or auto (try all). "
            "Default: parallel; for few images, auto."
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of low-rank adapters.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --adapters auto: largest pack, as a share of the trunk, such as 5%."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting: train.KEY=…, add.KEY=…, domains.NAME.KEY=… or seed=…; "
            "repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after an interruption.")
    ] = False,
    device: DeviceName = None,
    as_json: AsJson = False,
) -> None:
    """Add a domain to a finished run."""
    check_name(name, "domain")
    if source.startswith(PREFIX):
        if adapters is not None or rank is not None or budget is not None or sets:
            raise BadInput(
                "a pack file is imported unchanged and takes no other options", got=source
            )
        show(import_pack(run, name, Path(source.removeprefix(PREFIX))), as_json)
        return
    given: dict[str, Any] = {} if adapters is None else {"adapters": adapters}
    if rank is not None:
        given["rank"] = rank
    if budget is not None:
        given["budget"] = share(budget)
        if adapters != "auto":
            raise BadInput(
                "--budget needs --adapters auto",
                got="the default" if adapters is None else f"--adapters {adapters}",
                try_="--adapters auto, or leave out --budget",
            )
    domain, settings = requested(name, source, given, sets or [])
    words = ["onetrunk", "add", str(run), name, source]
    words += [] if adapters is None else ["--adapters", adapters]
    words += [] if rank is None else ["--rank", str(rank)]
    words += [] if budget is None else ["--budget", budget]
    again = shlex.join([*words, *(w for s in sets or [] for w in ("--set", s)), "--resume"])
    try:
        result = add(run, domain, resume=resume, device=device, command=again, **settings)
    except KeyboardInterrupt:
        raise Failed("interrupted; finished work is kept", try_=again) from None
    show(result, as_json)


def requested(
    name: str, source: str, add: Mapping[str, Any], sets: Sequence[str]
) -> tuple[Domain, dict[str, Any]]:
    """Return the domain and the arguments of `onetrunk.add` that the command line gives."""
    given = {"domains": [{"name": name, "source": source}], "add": dict(add), "train": {}}
    document = apply_sets(given, sets)
    for key in document:
        if key not in ("domains", "add", "train", "seed"):
            raise BadInput(
                "--set: unknown key",
                got=key,
                available=("train", "add", f"domains.{name}", "seed"),
            )
    part = DomainSettings.of(document["domains"][0], f"domains.{name}")
    settings = AddSettings.of(document["add"], "add").given()
    settings["train"] = Train.of(document["train"], "train")
    if "seed" in document:
        settings["seed"] = document["seed"]
    return Domain.of(part), settings


def share(text: str) -> float:
    """Parse a share such as `5%` or `0.05`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise BadInput(
            "--budget expects a share of the trunk's bytes", got=text, try_="--budget 5%"
        )
    return value


def show(result: DomainResult, as_json: bool) -> None:
    """Show the scores, the attempts, the check of the other domains and the size."""
    record, name = result.record, result.name
    if as_json:
        print_json({"run": str(result.folder), **record})
        return
    if "test" in record:
        console().print(result.table)
    if len(record.get("tried", ())) > 1:
        console().print(_attempts(record["tried"]))
    about = record["added"]
    if about.get("chosen"):
        repeat(f"chosen: {printable(about['chosen'])}")
    repeat(f"{name}: {result.unchanged}")
    size = f"{scaled(about['bytes'], 'B')}, {100 * about['share']:.1f} % of the trunk"
    print(f"wrote {result.folder}/model/packs/{name}.pack: {size}")
    place = shlex.quote(str(result.folder))
    suggest(f"onetrunk predict {place} IMAGE --domain {name}", f"onetrunk info {place}")


def _attempts(tried: Sequence[Mapping[str, Any]]) -> Grid:
    """Return a table of the error and size of each attempt; for few images, by method."""
    few = "method" in tried[0]
    where = "held-out folds" if few else "validation"
    grid = Grid(title=f"attempts, errors on {where}", title_justify="left")
    grid.add_column("adapters or method")
    for column in ("error",) if few else ("weights", "of the trunk", "error"):
        grid.add_column(column, justify="right")
    for each in tried:
        rank = "" if few or each["rank"] is None else f", rank {each['rank']}"
        label = escape(each["method"] if few else each["adapters"] + rank)
        sizes = [] if few else [scaled(each["bytes"], "B"), f"{100 * each['share']:.1f} %"]
        grid.add_row(label, *sizes, number(each["error"], "%"))
    return grid
