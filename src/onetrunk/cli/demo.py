"""`onetrunk demo`: four specialists, and one network distilled from them, on embedded domains."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as Screen

from onetrunk.cli.options import AsJson
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config import Recipe
from onetrunk.eval.summary import decathlon_score
from onetrunk.eval.table import number
from onetrunk.progress import say
from onetrunk.report.floors import read_floors, title_of
from onetrunk.report.report import report
from onetrunk.runs.experiment import train_all
from onetrunk.runs.open import Run
from onetrunk.store.places import check_file, check_folder, relative_to

EXAMPLES = """# run it again to continue after an interruption; writes to runs/demo
onetrunk demo
"""
SPECIALISTS, ONE = "specialists", "universal"  # the folders of the two runs
DISTILL = ("distill.features=cka", "distill.temperature=4")
PAGE = "report.html"
OWN = (SPECIALISTS, ONE, PAGE)  # what a demo writes


def command(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Train specialists and one network distilled from them; show their errors and the report."""
    check_folder(out, "that of a demo", lambda path: path.name in OWN)
    check_file(out / PAGE)
    began = time.monotonic()
    say("training four networks, one for each domain, and distilling one network from them")
    teachers = relative_to(out / SPECIALISTS, Path())
    recipes = {
        SPECIALISTS: _recipe(out / SPECIALISTS, ["trunk.sharing=none"]),
        ONE: _recipe(out / ONE, [f"distill.teachers={json.dumps(teachers)}", *DISTILL]),
    }
    alone, one = train_all(recipes, resume=True).values()
    page = report([one.folder], baseline=alone.folder, out=out / PAGE)
    floors = {
        title_of(name, "classify"): floor.tables[0]
        for name, floor in read_floors(one.folder).items()
    }
    found = {
        "domains": {
            name: {
                "specialist": alone.table.value(name),
                "universal": one.table.value(name),
                **{title: table.value(name) for title, table in floors.items()},
            }
            for name in one.table.domains
        },
        "decathlon_score": decathlon_score(one.table, alone.table),
        "parameters": {"specialists": _parameters(alone), "universal": _parameters(one)},
        "seed": one.scores["seed"],
        "seconds": round(time.monotonic() - began, 1),
        "report": str(page),
    }
    if as_json:
        print_json(found)
    else:
        _show(found, one.folder)


def _recipe(out: Path, sets: list[str]) -> Recipe:
    return Recipe.named("pocket-quick").with_sets(
        [f"name={out.name}", f"out={json.dumps(relative_to(out, Path()))}", *sets]
    )


def _parameters(run: Run) -> int:
    return sum(part["universal"]["parameters"] for part in run.scores["budget"].values())


def _show(found: dict[str, Any], run: Path) -> None:
    table = Screen(title="errors on test images, %", title_justify="left")
    table.add_column("domain")
    networks = {"specialist": "specialist", "universal": "one network"}
    floors = [key for key in next(iter(found["domains"].values())) if key not in networks]
    for column in (*floors, *networks.values()):
        table.add_column(column, justify="right")
    for name, errors in found["domains"].items():
        table.add_row(name, *(number(errors[key], "%") for key in (*floors, *networks)))
    many, one = found["parameters"]["specialists"], found["parameters"]["universal"]
    table.add_section()
    table.add_row("parameters", *("" for _ in floors), f"{many:,}", f"{one:,}")
    console().print(table)
    print(
        f"one network has {100 * one / many:.0f} % of the parameters of {len(found['domains'])}; "
        f"seed {found['seed']}, {found['seconds']:.0f} s"
    )
    print(f"wrote {found['report']}: open it in a browser")
    suggest(
        f"onetrunk predict {run} IMAGE --domain emoji",
        "onetrunk data folder:PATH/TO/CLASS/FOLDERS",
        "onetrunk recipes folders > mine.toml",
    )
