"""`onetrunk eval`: the scores of a run's model on its domains."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.output import console, print_json
from onetrunk.config.recipe import FILE
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, printable
from onetrunk.eval.evaluate import run_evaluation
from onetrunk.nn.saving import models_of
from onetrunk.progress import say
from onetrunk.runs.open import domains_of
from onetrunk.train.device import choose_device

HELP = """Evaluate a run's model: a table of domains and tasks, and the classes that it confuses.

[bold]Examples[/bold]

  onetrunk eval runs/shop

  onetrunk eval runs/shop --domain catalogue --split val

  onetrunk eval runs/shop --latex > table.tex

  onetrunk eval runs/rooms --scales 0.75,1,1.25 --mirror    maps averaged over views
"""
WORST = 3  # confusions of a task that people are shown; --json has more


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    domain: Annotated[
        list[str] | None, typer.Option(help="Only this one; repeatable; without it all.")
    ] = None,
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    scales: Annotated[
        str, typer.Option(help="Average maps over resized images: 0.75,1,1.25; 1 is off.")
    ] = "1",
    mirror: Annotated[bool, typer.Option("--mirror", help="And over mirrored ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="The table as LaTeX.")] = False,
) -> None:
    """Evaluate a run's model."""
    if split not in ("test", "val"):
        raise BadInput("--split is test or val", got=split, available=("test", "val"))
    if as_json + as_csv + as_latex > 1:
        raise BadInput("one of --json, --csv and --latex", got="several")
    factors = _factors(scales)
    models = models_of(run)
    domains = chosen_domains(run, list(models), domain)
    found = run_evaluation(
        models, domains, split, device=choose_device(device), scales=factors, mirror=mirror
    )
    table = found.table()
    if as_json:
        confused = found.confusions()
        print_json({"run": str(run), **table.to_json(), "confusions": confused})
    elif as_csv:
        print(table.to_csv(), end="")
    elif as_latex:
        print(table.to_latex(), end="")
    else:
        paper = console()
        paper.print(table)
        worst = found.confusions(WORST)
        if any(pairs for tasks in worst.values() for pairs in tasks.values()):
            paper.print(_confused(worst))
        place = shlex.quote(str(run))
        name = table.domains[0] if table.domains else next(iter(models))
        print(f"try: onetrunk predict {place} IMAGE --domain {name}, or onetrunk info {place}")


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise BadInput("--scales are numbers", got=text, try_="--scales 0.75,1,1.25") from None


def chosen_domains(run: Path, known: list[str], asked: list[str] | None) -> list[Domain]:
    """The run's own domains, as its recipe says where they are."""
    if not (run / FILE).is_file():
        raise BadInput(
            f"{run} has a model and no {FILE}: nothing says which data to evaluate it on",
            try_="onetrunk.evaluate(onetrunk.load(folder), domains) in Python",
        )
    for name in asked or ():
        if name not in known:
            raise BadInput("the run has no such domain", got=name, available=known)
    wanted = known if asked is None else asked
    found = {one.name: one for one in domains_of(run) if one.name in wanted}
    for name in wanted:
        if name not in found and asked is not None:
            raise BadInput(
                f"{name} came as a pack: nothing says where its images are",
                got=name,
                available=found,
                try_=f"onetrunk predict {shlex.quote(str(run))} IMAGE --domain {name}",
            )
        if name not in found:
            say(f"{name} came as a pack, and nothing says where its images are: left out")
    return list(found.values())


def _confused(worst: dict[str, dict[str, list[dict[str, Any]]]]) -> Grid:
    grid = Grid(title="most confused classes", title_justify="left")
    for column in ("domain", "task", "these", "taken for"):
        grid.add_column(column)
    for column in ("images", "of the class"):
        grid.add_column(column, justify="right")
    for name, tasks in worst.items():
        for task, pairs in tasks.items():
            for pair in pairs:
                words = (name, task, pair["true"], pair["predicted"])
                cells = [escape(printable(word)) for word in words]
                grid.add_row(*cells, f"{pair['count']:,}", f"{100 * pair['share']:.0f} %")
    return grid
