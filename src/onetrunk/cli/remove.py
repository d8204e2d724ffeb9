"""`onetrunk remove`: a domain leaves a run's model; its pack is kept."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.output import print_json
from onetrunk.runs.pack_store import remove as take_out

HELP = """Take a domain out of a run's model; every other answers as before, to the bit.

[bold]Examples[/bold]

  onetrunk remove runs/shop birds                                  it says how to bring it back
"""


def remove(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="The domain's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Remove a domain."""
    path = take_out(run, name)
    back = shlex.join(["onetrunk", "add", str(run), name, f"pack:{path}"])
    if as_json:
        print_json({"run": str(run), "removed": name, "pack": str(path), "back": back})
        return
    print(f"removed {name}; its pack is kept: {path}")
    print(f"try: {back} brings it back")
