"""`onetrunk add`: a new domain on a finished run's trunk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.output import console, print_json
from onetrunk.config import DomainPart
from onetrunk.config.growth import USUAL
from onetrunk.config.sets import apply_sets
from onetrunk.data.domain import Domain
from onetrunk.data.task import check_name
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.eval.budget import scaled
from onetrunk.eval.table import number
from onetrunk.runs.add import Grown, add_to_run
from onetrunk.runs.import_pack import PREFIX, bring

HELP = """Add a domain to a finished run: a small pack is learned, nothing else moves.

[bold]Examples[/bold]

  onetrunk add runs/shop x-rays folder:photos/x-rays

  onetrunk add runs/shop x-rays folder:photos/x-rays --adapters auto --budget 5%

  onetrunk add runs/shop birds folder:five-birds           a handful of images is enough

  onetrunk add runs/shop x-rays folder:x-rays --set train.steps=800 --set domains.x-rays.size=96

  onetrunk add runs/shop x-rays pack:x-rays.pack           from another machine, same trunk
"""


def add(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="The new domain's name.")],
    source: Annotated[str, typer.Argument(help="PREFIX:REST, or pack:FILE.")],
    adapters: Annotated[
        str, typer.Option(help="parallel, series, lora, norm, none (head only), auto (tries all).")
    ] = USUAL,
    rank: Annotated[int | None, typer.Option(help="Of low-rank adapters.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Of auto: a pack's largest size, 5% of the trunk's.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="train.KEY, grow.KEY, domains.NAME.KEY or seed; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Add a domain."""
    check_name(name, "domain")
    if source.startswith(PREFIX):
        if adapters != USUAL or rank is not None or budget is not None or sets:
            raise BadInput("a pack is taken as it is: no setting goes with it", got=source)
        show(bring(run, name, Path(source.removeprefix(PREFIX))), as_json)
        return
    grow: dict[str, Any] = {"adapters": adapters}
    if rank is not None:
        grow["rank"] = rank
    if budget is not None:
        grow["budget"] = share(budget)
        if adapters != "auto":
            raise BadInput(
                "--budget is what --adapters auto chooses within",
                got=f"--adapters {adapters}",
                try_="--adapters auto, or no --budget",
            )
    domain, document = asked(name, source, grow, sets or [])
    words = ["onetrunk", "add", str(run), name, source, "--adapters", adapters]
    words += [] if rank is None else ["--rank", str(rank)]
    words += [] if budget is None else ["--budget", budget]
    again = shlex.join([*words, *(w for s in sets or [] for w in ("--set", s)), "--resume"])
    try:
        found = add_to_run(run, domain, document, again=again, resume=resume, device=device)
    except KeyboardInterrupt:
        raise Failed(f"stopped; what was done is kept; try: {again}") from None
    show(found, as_json)


def asked(
    name: str, source: str, grow: Mapping[str, Any], sets: Sequence[str]
) -> tuple[Domain, dict[str, Any]]:
    """The domain and the settings, as the user says them on the command line."""
    given = {"domains": [{"name": name, "source": source}], "grow": dict(grow), "train": {}}
    document = apply_sets(given, sets)
    for key in document:
        if key not in ("domains", "grow", "train", "seed"):
            raise BadInput(
                "--set: unknown key",
                got=key,
                available=("train", "grow", f"domains.{name}", "seed"),
            )
    part = DomainPart.of(document.pop("domains")[0], f"domains.{name}")
    return part.make(Path()), document


def share(text: str) -> float:
    """`5%` or `0.05`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise BadInput("--budget is a share of the trunk's bytes", got=text, try_="--budget 5%")
    return value


def show(found: Grown, as_json: bool) -> None:
    """The scores, the ladder, the proof, the size."""
    record, name = found.scores, found.name
    if as_json:
        print_json({"run": str(found.folder), **record})
        return
    if "test" in record:
        console().print(found.table)
    if len(record.get("tried", ())) > 1:
        console().print(_ladder(record["tried"]))
    about = record["grown"]
    if about.get("chosen"):
        print(f"chosen: {printable(about['chosen'])}")
    print(f"{name}: {found.proof.said}")
    size = f"{scaled(about['bytes'], 'B')}, {about['share']:.1%} of the trunk"
    print(f"wrote {found.folder}/model/packs/{name}.pack: {size}")
    place = shlex.quote(str(found.folder))
    print(f"try: onetrunk predict {place} IMAGE --domain {name}, or onetrunk info {place}")


def _ladder(tried: Sequence[Mapping[str, Any]]) -> Grid:
    """Error against bytes, in the order of trying; of a handful, the folds of each way."""
    few = "way" in tried[0]
    where = "held-out folds" if few else "validation"
    grid = Grid(title=f"what was tried, errors on {where}", title_justify="left")
    grid.add_column("owned")
    for column in ("error",) if few else ("pack", "of the trunk", "error"):
        grid.add_column(column, justify="right")
    for each in tried:
        rank = "" if few or each["rank"] is None else f", rank {each['rank']}"
        label = escape(each["way"] if few else each["adapters"] + rank)
        sizes = [] if few else [scaled(each["bytes"], "B"), f"{each['share']:.1%}"]
        grid.add_row(label, *sizes, number(each["error"], "%"))
    return grid
