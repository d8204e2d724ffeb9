"""`onetrunk remove`: remove a domain from a run, and keep its pack."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from onetrunk.cli.options import AsJson, FinishedRun
from onetrunk.cli.output import print_json, suggest
from onetrunk.runs.pack_store import remove

EXAMPLES = """# prints the command that restores it
onetrunk remove runs/shop birds
"""


def command(
    run: FinishedRun,
    name: Annotated[str, typer.Argument(help="Name of the domain.")],
    as_json: AsJson = False,
) -> None:
    """Remove a domain from a run."""
    path = remove(run, name)
    back = shlex.join(["onetrunk", "add", str(run), name, f"pack:{path}"])
    if as_json:
        print_json({"run": str(run), "removed": name, "pack": str(path), "restore": back})
        return
    print(f"removed {name}; its pack is kept in {path}")
    suggest(back)
