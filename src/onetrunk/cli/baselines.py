"""`onetrunk baselines`: what a user would otherwise pick, over the same domains."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from onetrunk.cli.output import console, print_json
from onetrunk.cli.train import recipe_of
from onetrunk.runs import baselines as learn
from onetrunk.store.run_folder import SCORES

NOTES = """frozen: linear heads on the initial trunk; finetune: a full network for each
domain; joint: one network with nothing per domain but heads. Each is a run
beside the recipe's own: OUT-frozen, OUT-finetune, OUT-joint."""
EXAMPLES = """onetrunk baselines recipe.toml
onetrunk baselines pocket-quick --only frozen,joint --set train.steps=200
# continue; finished runs are kept
onetrunk baselines recipe.toml --resume
"""


def command(
    recipe: Annotated[str, typer.Argument(help="File or name of a recipe.")],
    only: Annotated[str, typer.Option(help="Baselines with commas between them.")] = ",".join(
        learn.KINDS
    ),
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, KEY=VALUE; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue interrupted runs.")] = False,
    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda, cuda:1 or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
