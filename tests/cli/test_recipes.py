"""`onetrunk recipes`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable

from onetrunk.config import named_recipes
from tests.helpers.verbs import Ran, one_line


def test_named_recipes_are_listed_with_a_line_each(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("recipes")
    assert ran.code == 0
    for name, text in named_recipes().items():
        assert name in ran.out
        assert text.split("\n")[0].removeprefix("# ")[:40] in ran.out
    assert "  onetrunk train pocket-quick" in ran.out
    assert json.loads(onetrunk("recipes", "--json").out) == named_recipes()


def test_a_named_recipe_is_printed_unchanged(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("recipes", "folders")
    assert ran.out == named_recipes()["folders"]
    assert tomllib.loads(ran.out)["trunk"]["arch"] == "auto"
    assert json.loads(onetrunk("recipes", "folders", "--json").out) == {"folders": ran.out}


def test_an_unknown_recipe_is_refused_with_the_available_names(
    onetrunk: Callable[..., Ran],
) -> None:
    line = one_line(onetrunk("recipes", "folder"))
    assert "got: 'folder'; available: folders" in line


def test_all_keys_are_listed_by_table(onetrunk: Callable[..., Ran]) -> None:
    ran = onetrunk("recipes", "keys")
    assert ran.code == 0
    keys = json.loads(onetrunk("recipes", "keys", "--json").out)
    assert {"key": "batch", "table": "[train]", "default": 64, "required": False}.items() <= next(
        key for key in keys if (key["table"], key["key"]) == ("[train]", "batch")
    ).items()
    for key in keys:
        assert key["key"] in ran.out
        assert key["table"] in ran.out
    for word in ("required", "a number above 0", "Learning rate"):
        assert word in ran.out


def test_the_methods_are_printed_as_a_file(onetrunk: Callable[..., Ran]) -> None:
    assert "parallel-low-rank" in tomllib.loads(onetrunk("recipes", "methods").out)
