"""`onetrunk update`: update a domain to changed classes and images, or undo that."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from onetrunk.cli.add import requested, show
from onetrunk.cli.options import AsJson, DeviceName, FinishedRun
from onetrunk.errors import BadInput, Failed
from onetrunk.runs.update import relabel, undo, update

EXAMPLES = """# train on the present classes and images of the folder
onetrunk update runs/shop birds folder:birds
# the same, with a renamed class
onetrunk update runs/shop birds folder:birds --rename tit=titmouse
# rename and drop classes without training
onetrunk update runs/shop birds --rename tit=titmouse --drop gull
# restore the previous version exactly
onetrunk update runs/shop birds --undo
"""


def command(
    run: FinishedRun,
    name: Annotated[str, typer.Argument(help="Name of the domain.")],
    source: Annotated[
        str | None,
        typer.Argument(help="Source of its present images; without it, nothing is trained."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="Rename a class, OLD=NEW; its weights are kept; repeatable."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Drop a class (only without SOURCE); repeatable.")
    ] = None,
    back: Annotated[bool, typer.Option("--undo", help="Restore the previous version.")] = False,
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
    """Update a domain of a finished run."""
    if back:
        if source is not None or rename or drop or sets:
            raise BadInput("--undo takes no other options", got=source or "other settings")
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
                "without SOURCE nothing is trained, so training options cannot be given",
                got="--resume" if resume else f"--set {(sets or [''])[0]}",
                try_=f"onetrunk update {shlex.quote(str(run))} {name} SOURCE",
            )
        show(relabel(run, name, rename=names, drop=drop or []), as_json)
        return
    if drop:
        raise BadInput(
            "--drop cannot be used with SOURCE: classes that SOURCE lacks are dropped",
            got=f"--drop {drop[0]}",
        )
    domain, settings = requested(name, source, {}, sets or [])
    words = ["onetrunk", "update", str(run), name, source]
    words += [w for pair in rename or [] for w in ("--rename", pair)]
    again = shlex.join([*words, *(w for s in sets or [] for w in ("--set", s)), "--resume"])
    try:
        result = update(
            run, domain, rename=names, resume=resume, device=device, command=again, **settings
        )
    except KeyboardInterrupt:
        raise Failed("interrupted; finished work is kept", try_=again) from None
    show(result, as_json)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """Parse `OLD=NEW` pairs."""
    pairs: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise BadInput("--rename expects OLD=NEW", got=text, try_="--rename tit=titmouse")
        if old in pairs or new in pairs.values():
            raise BadInput("--rename names a class twice", got=text)
        pairs[old] = new
    return pairs
