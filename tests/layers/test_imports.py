"""Imports go downward only: cli → serve → learn → measure → model → data → store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onetrunk

SRC = Path(onetrunk.__file__).parent
LAYERS = ("store", "data", "model", "measure", "recipe", "learn", "serve", "cli")  # lowest first
LEAVES = ("errors", "progress")  # all may use them; they use each other alone
ABOVE_ALL = ("", "__main__", "testing")  # may import anything; nothing imports them


def layer_of(module: str) -> str:
    """`onetrunk.data.pixels` lies in `data`, `onetrunk` itself in ``."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, module: str, package: bool) -> Iterator[tuple[int, str]]:
    """Every module of onetrunk that a source text imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            if node.level:
                base = base[: len(base) - node.level + package]
            else:
                base = []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            if origin == "onetrunk":  # the name is a module, or one of the public names
                for name in node.names:
                    known = (*LAYERS, *LEAVES, *ABOVE_ALL)
                    yield node.lineno, f"onetrunk.{name.name}" if name.name in known else "onetrunk"
            else:
                yield node.lineno, origin


def forbidden(source: str, module: str, package: bool = False) -> list[str]:
    """The arrows of a source text that point upward."""
    own, found = layer_of(module), []
    if own in ABOVE_ALL:
        return found
    for line, name in imports(source, module, package):
        if name.split(".")[0] != "onetrunk":
            continue
        other = layer_of(name)
        if own in LEAVES:
            allowed = other in LEAVES
        elif other in LEAVES:
            allowed = True
        elif other in ABOVE_ALL:
            allowed = False
        else:
            allowed = LAYERS.index(other) <= LAYERS.index(own)
        if not allowed:
            found.append(f"{module}:{line} imports {name}")
    return found


FILES = {
    ".".join(("onetrunk", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SRC.rglob("*.py"))
}


def test_every_file_lies_in_a_known_layer() -> None:
    assert {layer_of(module) for module in FILES} <= {*LAYERS, *LEAVES, *ABOVE_ALL}
    assert len(FILES) > 30


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downward_only(module: str) -> None:
    path = FILES[module]
    assert forbidden(path.read_text("utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize("module", [m for m in FILES if layer_of(m) not in ABOVE_ALL])
def test_nothing_happens_when_a_module_is_imported(module: str) -> None:
    """Definitions, constants and docstrings alone: no loop, no call for its effect."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(FILES[module].read_text("utf-8")).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        decorated = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        assert isinstance(node, allowed) or docstring or typing or decorated, ast.unparse(node)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("onetrunk.store.atomic", "import onetrunk.data.domain"),
        ("onetrunk.data.domain", "from onetrunk.model.trunk import Trunk"),
        ("onetrunk.data.domain", "def f():\n    from onetrunk import cli"),
        ("onetrunk.data.domain", "from onetrunk import Domain"),
        ("onetrunk.data.domain", "import onetrunk"),
        ("onetrunk.data.domain", "from ..model import trunk"),
        ("onetrunk.data.sources.folder", "from ...learn.fit import fit"),
        ("onetrunk.model.trunk", "import os, onetrunk.measure.scores as s"),
        ("onetrunk.measure.scores", "from onetrunk.learn import losses"),
        ("onetrunk.errors", "from onetrunk.data.task import Task"),
        ("onetrunk.serve.app", "from onetrunk.testing import conformance"),
        ("onetrunk.learn.fit", "if True:\n    import onetrunk.cli"),
    ],
)
def test_the_test_finds_a_forbidden_arrow(module: str, source: str) -> None:
    assert len(forbidden(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("onetrunk.cli", "from onetrunk.serve.app import app\nfrom onetrunk.store import atomic"),
        ("onetrunk.learn.fit", "from onetrunk.measure import scores, budget"),
        ("onetrunk.data.domain", "from onetrunk.data import pixels\nfrom . import cache"),
        ("onetrunk.data.domain", "from onetrunk import errors\nfrom onetrunk.progress import say"),
        ("onetrunk.data.domain", "import numpy, onetrunked.cli"),
        ("onetrunk.testing", "import onetrunk.cli"),
        ("onetrunk", "from onetrunk.data.domain import Domain"),
    ],
)
def test_the_test_lets_the_others_pass(module: str, source: str) -> None:
    assert forbidden(source, module, module == "onetrunk") == []
