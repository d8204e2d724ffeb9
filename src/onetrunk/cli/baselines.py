"""`onetrunk baselines`: what a user would otherwise pick, over the same domains."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from onetrunk.cli.output import console, print_json
from onetrunk.cli.train import recipe_of
from onetrunk.runs import baselines as learn
from onetrunk.store.run_folder import SCORES

HELP = """What you would otherwise pick, over the same domains: to evaluate a recipe's network by.

frozen: linear heads on the trunk as it starts, in minutes; finetune: a full network for each
domain; joint: one network, and nothing per domain but heads. They are runs beside the recipe's own:
OUT-frozen, OUT-finetune, OUT-joint.

[bold]Examples[/bold]

  onetrunk baselines recipe.toml                   all three, one after the other

  onetrunk baselines pocket-quick --only frozen,joint --set train.steps=200

  onetrunk baselines recipe.toml --resume          go on; what is finished stays as it is
"""


def baselines(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of a recipe.")],
    only: Annotated[str, typer.Option(help="Which of them, with commas.")] = ",".join(learn.KINDS),
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: as of train; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Train what a user would otherwise pick."""
    made = recipe_of(recipe, sets or [])
    kinds = [kind.strip() for kind in only.split(",") if kind.strip()]
    document = learn.baselines(made, kinds, resume=resume, device=device)
    if as_json:
        print_json(document)
        return
    console().print(learn.shown(document))
    print(f"wrote {learn.beside(made, 'baselines.json')}")
    if not (made.out_folder / SCORES).exists():
        words = " ".join(f"--set {shlex.quote(one)}" for one in sets or [])
        print(f"try: onetrunk train {shlex.quote(recipe)} {words}".rstrip())
    print(f"try: {document['next']}")
