"""`onetrunk baselines`: what a user would otherwise pick, over the same domains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from onetrunk.learn.baselines import KINDS, baselines, beside, shown
from onetrunk.recipe import Recipe, named_recipes
from onetrunk.store.strict import strict_json

HELP = """What you would otherwise pick, over the same domains: to judge the recipe's network by.

frozen: linear heads on the trunk as it starts, in minutes. finetune: a full network for each domain.
joint: one network with nothing per domain but heads. They go to OUT-frozen, OUT-finetune and
OUT-joint; what is finished is not run again.

[bold]Examples[/bold]

  onetrunk baselines shop.toml                 all three

  onetrunk baselines pocket-quick --only frozen,joint --set train.steps=200

  onetrunk baselines shop.toml --resume        go on where it was stopped
"""


def verb(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, its run's folder, or its name.")],
    only: Annotated[str, typer.Option(help="Which of them, with commas.")] = ",".join(KINDS),
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: a key of the recipe changed.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; else what is there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """What a user would otherwise pick."""
    named = recipe in named_recipes() and not Path(recipe).exists()
    read = Recipe.named(recipe, sets or ()) if named else Recipe.read(recipe, sets or ())
    kinds = [kind.strip() for kind in only.split(",") if kind.strip()]
    document = baselines(read, kinds, resume=resume, device=device)
    if as_json:
        print(strict_json(document, indent=1))
        return
    Console(highlight=False).print(shown(document))
    print(f"wrote {beside(read, 'baselines.json')}")
    for line in document["next"]:
        print(f"next: {line}")
