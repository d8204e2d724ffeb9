"""`onetrunk report`: one page that answers "one network or N?"."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.output import print_json
from onetrunk.report.report import report

HELP = """One network or N? Finished runs as one page that opens offline: scores beside a baseline's
with intervals, a verdict by written rules, size, latency, pictures, curves, what happens inside.

[bold]Examples[/bold]

  onetrunk report runs/shop --baseline runs/shop-finetune

  onetrunk report runs/deep runs/shared --baseline runs/specialists --out norms.html

  onetrunk report runs/shop --baseline theirs.csv       someone else's predictions

  onetrunk report runs/pets --baseline timm/resnet50    a checkpoint, its labels mapped by name

  onetrunk report runs/x-rays --no-images               no picture, no name of a file
"""


def verb(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; seeds of one go together.")],
    baseline: Annotated[
        Path | None,
        typer.Option(help="The run of separate networks, a table of predictions, or timm/NAME."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Pictures and names of files.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="What was written, as JSON.")] = False,
) -> None:
    """One page that answers "one network or N?"."""
    path = report(runs, baseline, out, images)
    if as_json:
        print_json({"file": str(path), "bytes": path.stat().st_size})
        return
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"try: open {shlex.quote(str(path))} in a browser; it needs nothing else")
