"""`onetrunk report`: write a page that compares runs with a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.options import AsJson
from onetrunk.cli.output import print_json
from onetrunk.errors import BadInput
from onetrunk.report.floors import FLOOR_CHOICES
from onetrunk.report.report import report

NOTES = """The page is a single HTML file that loads nothing from the network. It shows scores
with intervals beside those of a baseline and of predictions without training (floors), a
verdict by fixed rules, size, latency, pictures and curves. All runs must be finished. An
earlier report is replaced; any other file is not."""
EXAMPLES = """# writes runs/shop/report.html
onetrunk report runs/shop --baseline runs/shop-finetune
# two networks beside separate ones
onetrunk report runs/deep runs/shared --baseline runs/specialists
# predictions of another system, from a table
onetrunk report runs/shop --baseline predictions.csv
# a timm checkpoint; its labels are matched by name
onetrunk report runs/pets --baseline timm/resnet50
# to another file, without pictures and file names
onetrunk report runs/x-rays --no-images --out x-rays.html
"""


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs; runs that differ only in their seed form one column."
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(help="Baseline: a run, a table of predictions, or timm/NAME."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write.", show_default="report.html in the first run"),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Include pictures and file names.")
    ] = True,
    floors: Annotated[
        str,
        typer.Option(
            help="Scores without training to show: all; auto, all that take less than a minute a "
            "domain; none."
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Write the report of one or more runs."""
    choice = next((each for each in FLOOR_CHOICES if each == floors), None)
    if choice is None:
        raise BadInput("unknown --floors", got=floors, available=FLOOR_CHOICES)
    path = report(runs, baseline, out, images, choice)
    if as_json:
        print_json({"file": str(path), "bytes": path.stat().st_size})
        return
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
    print("Open it in a browser; it is self-contained.")
