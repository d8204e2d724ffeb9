"""`onetrunk update`: a domain's classes and images change; only its pack moves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onetrunk.cli.add import asked, show
from onetrunk.errors import BadInput, Failed
from onetrunk.runs.update import relabel, undo, update_run

HELP = """Learn a domain on, over the classes and images that it has now; or rename, drop, undo.

[bold]Examples[/bold]

  onetrunk update runs/shop birds folder:birds                classes and images as they are now

  onetrunk update runs/shop birds folder:birds --rename tit=titmouse

  onetrunk update runs/shop birds --rename tit=titmouse --drop gull    nothing is learned

  onetrunk update runs/shop birds --undo                      the version before, to the bit
"""


def update(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="The domain's name.")],
    source: Annotated[
        str | None, typer.Argument(help="PREFIX:REST; without it: no learning.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW, a class; its row is kept; repeatable.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A class that goes, without a SOURCE; repeatable.")
    ] = None,
    back: Annotated[bool, typer.Option("--undo", help="Back to the version before.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="train.KEY, grow.KEY, domains.NAME.KEY or seed; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Update a domain."""
    if back:
        if source is not None or rename or drop or sets:
            raise BadInput("--undo goes alone", got=source or "other settings")
        show(undo(run, name), as_json)
        return
    names = _pairs(rename or [])
    if source is None:
        if not names and not drop:
            raise BadInput(
                "expected a SOURCE, --rename OLD=NEW, --drop CLASS or --undo",
                got="none of them",
                try_=f"onetrunk update {shlex.quote(str(run))} {name} SOURCE",
            )
        if sets or resume:
            raise BadInput(
                "without a SOURCE nothing is learned, and no setting goes with it",
                got="--resume" if resume else f"--set {(sets or [''])[0]}",
                try_=f"onetrunk update {shlex.quote(str(run))} {name} SOURCE",
            )
        show(relabel(run, name, rename=names, drop=drop or []), as_json)
        return
    if drop:
        raise BadInput("with a SOURCE its classes decide which ones go", got=f"--drop {drop[0]}")
    domain, document = asked(name, source, {}, sets or [])
    words = ["onetrunk", "update", str(run), name, source]
    words += [w for pair in rename or [] for w in ("--rename", pair)]
    again = shlex.join([*words, *(w for s in sets or [] for w in ("--set", s)), "--resume"])
    try:
        found = update_run(run, domain, document, names, again=again, resume=resume, device=device)
    except KeyboardInterrupt:
        raise Failed(f"stopped; what was done is kept; try: {again}") from None
    show(found, as_json)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """`old=new`, each once."""
    found: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise BadInput("--rename is OLD=NEW", got=text, try_="--rename tit=titmouse")
        if old in found or new in found.values():
            raise BadInput("--rename: each class once", got=text)
        found[old] = new
    return found
