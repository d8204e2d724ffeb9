"""`onetrunk eval`: evaluate the model of a run on its domains."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from onetrunk.cli.class_table import class_table
from onetrunk.cli.options import AsJson, DeviceName, FinishedRun
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, printable
from onetrunk.eval.detail_files import check_details_folder, write_details
from onetrunk.eval.evaluate import evaluate_split
from onetrunk.progress import say
from onetrunk.runs.open import Run
from onetrunk.train.device import choose_device

EXAMPLES = """onetrunk eval runs/shop
onetrunk eval runs/shop --domain catalogue --split val
# precision, recall and F1 of each class
onetrunk eval runs/shop --per-class
# confusion matrices, reliability and the worst images as CSV and PNG files
onetrunk eval runs/shop --out evaluation/
onetrunk eval runs/shop --latex > table.tex
# average predicted maps over several scales and mirrored images
onetrunk eval runs/rooms --scales 0.75,1,1.25 --mirror
"""
EVALUATED = ("test", "val", "train")
WORST = 3  # confusions per task in the table; --json has more


def command(
    run: FinishedRun,
    domain: Annotated[
        list[str] | None, typer.Option(help="Evaluate this domain only; repeatable.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="Split to evaluate: test, val, or train (without augmentation)."),
    ] = "test",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Print precision, recall and F1 of each class.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write classes, confusion matrices, reliability and the worst images to."
        ),
    ] = None,
    device: DeviceName = None,
    scales: Annotated[
        str,
        typer.Option(help="Average predicted maps over these image scales, such as 0.75,1,1.25."),
    ] = "1",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Average predicted maps over mirrored images as well.")
    ] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX.")] = False,
) -> None:
    """Evaluate a run's model."""
    if split not in EVALUATED:
        raise BadInput("--split expects a split", got=split, available=EVALUATED)
    if as_json + as_csv + as_latex > 1:
        raise BadInput("expected at most one of --json, --csv and --latex", got="several")
    if per_class and (as_json or as_csv or as_latex):
        raise BadInput(
            "--per-class is for the printed tables; --json and --out have the classes anyway",
            got="--json, --csv or --latex",
        )
    factors = _factors(scales)
    if out is not None:
        check_details_folder(out)
    opened = Run(run)
    models = opened.networks
    domains = chosen_domains(opened, domain)
    found = evaluate_split(
        models, domains, split, device=choose_device(device), scales=factors, mirror=mirror
    )
    table = found.table()
    files = [] if out is None else write_details(found.tasks, out)
    if split == "train":
        say("these are the images that the model was trained on: not a measure of generalization")
    if as_json:
        details = {"confusions": found.confusions(), "details": found.details()}
        written = {"files": [str(path) for path in files]} if files else {}
        print_json({"run": str(run), **table.to_json(), **details, **written})
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
        for one in found.tasks if per_class else ():
            if classes := one.per_class():
                paper.print(class_table(f"{one.domain}/{one.task.name}: classes", classes))
        if out is not None:
            print(f"wrote {len(files)} files into {out}")
        place = shlex.quote(str(run))
        name = table.domains[0] if table.domains else next(iter(models))
        suggest(f"onetrunk predict {place} IMAGE --domain {name}", f"onetrunk info {place}")


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise BadInput(
            "--scales expects numbers separated by commas",
            got=text,
            try_="--scales 0.75,1,1.25",
        ) from None


def chosen_domains(run: Run, requested: list[str] | None) -> list[Domain]:
    """Return the requested domains, by default all whose images are known."""
    if run.state == "model":
        raise BadInput(
            f"{run.folder} has a model but no recipe.toml, so its data is unknown",
            try_="onetrunk.evaluate(onetrunk.load(folder), domains) in Python",
        )
    if not run.domains:
        raise run.no_images()
    for name in requested or ():
        if name not in run.names:
            raise BadInput("the run has no domain of this name", got=name, available=run.names)
    wanted = run.names if requested is None else requested
    for name in wanted:
        if name not in run.domains and requested is None:
            say(f"{run.no_images([name]).expected}; it is left out")
        elif name not in run.domains:
            raise run.no_images([name])
    return [domain for name, domain in run.domains.items() if name in wanted]


def _confused(worst: dict[str, dict[str, list[dict[str, Any]]]]) -> Grid:
    grid = Grid(title="most confused classes", title_justify="left")
    for column in ("domain", "task", "class", "predicted as"):
        grid.add_column(column)
    for column in ("images", "share of the class"):
        grid.add_column(column, justify="right")
    for name, tasks in worst.items():
        for task, pairs in tasks.items():
            for pair in pairs:
                words = (name, task, pair["true"], pair["predicted"])
                cells = [escape(printable(word)) for word in words]
                grid.add_row(*cells, f"{pair['count']:,}", f"{100 * pair['share']:.0f} %")
    return grid
