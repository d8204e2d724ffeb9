"""Imports go downward only, between layers and between files.

cli → serve, bulk, report → runs → train → config → eval → nn → data → store
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onetrunk

SRC = Path(onetrunk.__file__).parent
LAYERS = (  # lowest first; those of one row do not import each other
    ("store",),
    ("data",),
    ("nn",),
    ("eval",),
    ("config",),
    ("train",),
    ("runs",),
    ("report", "serve", "bulk"),
    ("cli",),
)
NAMES = tuple(name for row in LAYERS for name in row)
LEAVES = (
    "display",
    "errors",
    "objects",
    "progress",
    "registry",
    "settings",
)  # all may use them; they use each other alone
ABOVE_ALL = ("", "__main__", "testing")  # may import anything; nothing imports them


def layer_of(module: str) -> str:
    """`onetrunk.data.pixels` lies in `data`, `onetrunk` itself in ``."""
    return module.split(".")[1] if "." in module else ""


def rank(layer: str) -> int:
    """Return the row of a layer, 0 for the lowest."""
    return next(i for i, row in enumerate(LAYERS) if layer in row)


def imports(source: str, module: str, package: bool) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module of onetrunk that a source text imports anywhere."""
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
                    known = (*NAMES, *LEAVES, *ABOVE_ALL)
                    yield node.lineno, f"onetrunk.{name.name}" if name.name in known else "onetrunk"
            else:
                yield node.lineno, origin


def forbidden(source: str, module: str, package: bool = False) -> list[str]:
    """Return the imports of a source text that point upward."""
    own = layer_of(module)
    found: list[str] = []
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
            allowed = own == other or rank(other) < rank(own)
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
    assert {layer_of(module) for module in FILES} <= {*NAMES, *LEAVES, *ABOVE_ALL}
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
        ("onetrunk.data.domain", "from onetrunk.nn.trunk import Trunk"),
        ("onetrunk.data.domain", "def f():\n    from onetrunk import cli"),
        ("onetrunk.data.domain", "from onetrunk import Domain"),
        ("onetrunk.data.domain", "import onetrunk"),
        ("onetrunk.data.domain", "from ..nn import trunk"),
        ("onetrunk.data.sources.folder", "from ...train.loop import fit"),
        ("onetrunk.nn.trunk", "import os, onetrunk.eval.metrics as s"),
        ("onetrunk.eval.metrics", "from onetrunk.train import losses"),
        ("onetrunk.errors", "from onetrunk.data.task import Task"),
        ("onetrunk.serve.app", "from onetrunk.testing import conformance"),
        ("onetrunk.serve.app", "from onetrunk.report.page import page"),
        ("onetrunk.train.loop", "if True:\n    import onetrunk.cli"),
    ],
)
def test_the_test_finds_a_forbidden_arrow(module: str, source: str) -> None:
    assert len(forbidden(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("onetrunk.cli", "from onetrunk.serve.app import app\nfrom onetrunk.store import atomic"),
        ("onetrunk.train.loop", "from onetrunk.eval import scores, budget"),
        ("onetrunk.data.domain", "from onetrunk.data import pixels\nfrom . import cache"),
        ("onetrunk.data.domain", "from onetrunk import errors\nfrom onetrunk.progress import say"),
        ("onetrunk.data.domain", "import numpy, onetrunked.cli"),
        ("onetrunk.testing", "import onetrunk.cli"),
        ("onetrunk", "from onetrunk.data.domain import Domain"),
    ],
)
def test_the_test_lets_the_others_pass(module: str, source: str) -> None:
    assert forbidden(source, module, module == "onetrunk") == []


def graph() -> dict[str, set[str]]:
    """Return for each module the modules of onetrunk that it imports, anywhere in the file."""
    found = {}
    for module, path in FILES.items():
        text, package = path.read_text("utf-8"), path.name == "__init__.py"
        names = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names |= {f"{node.module}.{name.name}" for name in node.names} & FILES.keys()
        names |= {name for _, name in imports(text, module, package) if name in FILES}
        parents = {name for name in names if any(n.startswith(f"{name}.") for n in names)}
        found[module] = names - parents - {module}
    return found


def cycle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of one cycle, or an empty list."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(arrows.get(module, ())):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    for module in arrows:
        if found := visit(module, []):
            return found
    return []


def test_no_files_import_each_other_in_a_cycle() -> None:
    assert cycle(graph()) == []


def test_the_test_finds_a_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
