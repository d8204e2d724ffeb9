"""The directives `recipe-keys` and `command-line`: the output of commands."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

from onetrunk.cli.app import VERBS, build

WIDTH = "100"  # columns


def printed(*words: str) -> str:
    """What `onetrunk WORDS` prints."""
    runner = CliRunner(env={"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH, "NO_COLOR": "1"})
    ran = runner.invoke(build(), list(words), prog_name="onetrunk")
    if ran.exit_code:
        raise ExtensionError(f"`onetrunk {' '.join(words)}` failed: {ran.output}{ran.exception}")
    return "\n".join(line.rstrip() for line in ran.output.strip("\n").splitlines())


class RecipeKeys(SphinxDirective):
    """`recipe-keys`, without arguments."""

    def run(self) -> list[nodes.Node]:
        text = printed("recipes", "keys")
        return [nodes.literal_block(text, text, language="text")]


class CommandLine(SphinxDirective):
    """`command-line`, without arguments: a section with the help of each command."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for verb in VERBS:
            help_text = printed(verb.name, "--help")
            lines += [f"## onetrunk {verb.name}", "", "````text", help_text, "````", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("command-line", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
