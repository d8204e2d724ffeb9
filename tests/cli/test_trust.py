"""--trust: commands import what a run names only if its module is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from onetrunk.cli.app import VERBS, Verb, build
from tests.helpers.typed import typed
from tests.helpers.verbs import photos

MODULE = """
from pathlib import Path

from torch import nn

Path("imported").touch()


class Head(nn.Sequential):
    def __init__(self, task, inside):
        super().__init__(nn.Linear(inside, 4), nn.ReLU(), nn.Linear(4, task.width))
"""
RECIPE = """
name = "pets"
out = "run"
[trunk]
arch = "resnet20"
[[domains]]
name = "pets"
source = "folder:photos"
size = 8
heads = { classify = "heads_beside_the_recipe:Head" }
[train]
steps = 2
batch = 4
"""
READING = (
    ["eval", "run"],
    ["predict", "run", "photos/cat/000.png"],
    ["info", "run"],
    ["export", "run", "pets.onnx"],
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_verbs_that_read_runs_have_the_option(verb: Verb) -> None:
    text = CliRunner().invoke(build(), [verb.name, "--help"]).output
    assert ("--trust" in text) == verb.reads_runs


@pytest.mark.slow
def test_a_recipe_is_consent_and_the_run_that_it_made_is_not(tmp_path: Path) -> None:
    photos(tmp_path / "photos", each=16)
    (tmp_path / "heads_beside_the_recipe.py").write_text(MODULE)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    code, printed = typed(["onetrunk", "train", "recipe.toml"], tmp_path)
    assert code == 0, printed
    (tmp_path / "imported").unlink()
    for words in READING:
        code, printed = typed(["onetrunk", *words], tmp_path)
        assert code == 2, printed
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        assert "--trust heads_beside_the_recipe" in printed
    assert not (tmp_path / "imported").exists()
    for words in READING:
        allowed = [*words, "--trust", "heads_beside_the_recipe"]
        code, printed = typed(["onetrunk", *allowed], tmp_path)
        assert code == 0, printed
    code, printed = typed(["onetrunk", "eval", "run", "--trust", "a b"], tmp_path)
    assert code == 2
    assert printed.count("\n") == 1
