"""`onetrunk recipes`: list the named recipes, print one, or list all keys of a recipe."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from onetrunk.cli.options import AsJson
from onetrunk.cli.output import console, print_json, suggest
from onetrunk.config import named_recipes
from onetrunk.config.keys import recipe_keys
from onetrunk.config.methods import methods, methods_text
from onetrunk.config.to_toml import inline
from onetrunk.errors import BadInput

EXAMPLES = """onetrunk recipes
# the recipe to copy for your own images
onetrunk recipes folders > recipe.toml
# every key of a recipe with its type, its default and a description
onetrunk recipes keys
# the methods that `onetrunk compare` compares
onetrunk recipes methods
"""
KEYS, METHODS = "keys", "methods"


def command(
    name: Annotated[
        str | None,
        typer.Argument(help="Recipe to print; keys: all keys of a recipe; methods: methods.toml."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the named recipes, print one, or list all keys of a recipe."""
    texts = named_recipes() | {METHODS: methods_text()}
    if name is not None and name not in (*texts, KEYS):
        raise BadInput(
            "unknown recipe", got=name, available=(*texts, KEYS), try_="onetrunk recipes"
        )
    if name == KEYS:
        show_keys(as_json)
    elif as_json:
        print_json(named_recipes() if name is None else {name: texts[name]})
    elif name is not None:
        sys.stdout.write(texts[name])
    else:
        show_names()


def show_keys(as_json: bool) -> None:
    """Print every key of a recipe, grouped by table."""
    keys = recipe_keys()
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    for name, rows in groupby(keys, lambda key: key.table):
        title = escape(name or "top level")
        table = Table(title=title, title_justify="left", box=None)
        table.add_column("key", no_wrap=True)
        for column in ("type", "default", "description"):
            table.add_column(column)
        for key in rows:
            default = "" if key.default is None else inline(key.default)
            default = "required" if key.required else default
            table.add_row(key.key, escape(key.type), escape(default), escape(key.description))
        console().print(table)
    suggest("onetrunk recipes folders > recipe.toml", "onetrunk train recipe.toml --dry-run")


def show_names() -> None:
    """Print the names and descriptions of all recipes and methods."""
    described = {
        "named recipes": {
            name: text.split("\n", 1)[0].removeprefix("# ")
            for name, text in named_recipes().items()
        },
        "methods of onetrunk compare": {
            name: method.description + (f" ({method.paper})" if method.paper else "")
            for name, method in methods().items()
        },
    }
    for title, rows in described.items():
        table = Table(title=title, title_justify="left")
        table.add_column("name", no_wrap=True)
        table.add_column("description")
        for name, description in rows.items():
            table.add_row(name, description)
        console().print(table)
    suggest("onetrunk train pocket-quick", "onetrunk recipes folders > recipe.toml")
