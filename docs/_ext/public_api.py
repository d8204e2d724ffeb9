"""The directive `public-api`: every name of `onetrunk.__all__`, documented by autodoc."""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import onetrunk

ORDER = ("Functions", "Classes", "Errors", "Other names")
AUTODOC = {
    "Functions": "autofunction",
    "Classes": "autoclass",
    "Errors": "autoexception",
    "Other names": "autodata",
}
OPTIONS = ["   :members:", "   :exclude-members: model_config, model_post_init"]  # pydantic's own


def kind_of(thing: object) -> str:
    if inspect.isclass(thing):
        return "Errors" if issubclass(thing, BaseException) else "Classes"
    return "Functions" if inspect.isroutine(thing) else "Other names"


def page() -> str:
    """All public names in Markdown, grouped by what they are."""
    groups: dict[str, list[str]] = {kind: [] for kind in ORDER}
    for name in onetrunk.__all__:
        thing = getattr(onetrunk, name)
        if not inspect.ismodule(thing) and not name.startswith("__"):
            groups[kind_of(thing)].append(name)
    lines = []
    for kind, names in groups.items():
        lines += [f"## {kind}", ""] if names else []
        for name in sorted(names):
            lines += ["```{eval-rst}", f".. {AUTODOC[kind]}:: onetrunk.{name}"]
            lines += OPTIONS if kind == "Classes" else []
            lines += ["```", ""]
    return "\n".join(lines)


class PublicApi(SphinxDirective):
    """`public-api`, without arguments."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(page(), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-api", PublicApi)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
