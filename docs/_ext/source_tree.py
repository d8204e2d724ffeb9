"""The directive `source-tree`: every file of a package with the first line of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SOURCE = Path(__file__).resolve().parents[2] / "src" / "onetrunk"


def summary(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n", 1)[0]


def source_tree(package: Path) -> list[tuple[str, str]]:
    """(path below the package, summary) of its files; a folder's summary is its `__init__`'s."""
    rows = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix().replace("/__init__.py", "/")
        if name != "__init__.py":
            rows.append((name, summary(path)))
    return rows


class SourceTree(SphinxDirective):
    """`source-tree`, with the name of a package below `onetrunk`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        items = []
        for name, text in source_tree(SOURCE / self.arguments[0]):
            term = nodes.term("", "", nodes.literal("", name))
            inline, _ = self.parse_inline(text)
            definition = nodes.definition("", nodes.paragraph("", "", *inline))
            items.append(nodes.definition_list_item("", term, definition))
        return [nodes.definition_list("", *items)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("source-tree", SourceTree)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
