"""`onetrunk recipes`: the named recipes, and one of them to start from."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config import named_recipes
from onetrunk.config.methods import methods, methods_text
from onetrunk.errors import BadInput

EXAMPLES = """onetrunk recipes
# the recipe to copy for your own images
onetrunk recipes folders > recipe.toml
# the methods that `onetrunk compare` knows
onetrunk recipes methods
"""
METHODS = "methods"


def command(
    name: Annotated[str | None, typer.Argument(help="Recipe to print.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the named recipes, or print one."""
    known = named_recipes() | {METHODS: methods_text()}
    if name is not None and name not in known:
        raise BadInput("no recipe of this name", got=name, available=known, try_="onetrunk recipes")
    if as_json:
        print_json(named_recipes() if name is None else {name: known[name]})
    elif name is not None:
        sys.stdout.write(known[name])
    else:
        table = Table(title="named recipes", title_justify="left")
        table.add_column("name", no_wrap=True)
        table.add_column("description")
        for each, text in named_recipes().items():
            table.add_row(each, text.split("\n", 1)[0].removeprefix("# "))
        console().print(table)
        grid = Table(title="methods of onetrunk compare", title_justify="left")
        grid.add_column("name", no_wrap=True)
        grid.add_column("description")
        for each, method in methods().items():
            grid.add_row(each, method.description + (f" ({method.paper})" if method.paper else ""))
        console().print(grid)
        suggest("onetrunk train pocket-quick", "onetrunk recipes folders > recipe.toml")
