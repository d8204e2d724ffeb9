"""The directive `recipe-keys`: what `onetrunk recipes keys` prints, at the time of the build."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

COMMAND = ("recipes", "keys")
SOURCE = Path(__file__).resolve().parents[2] / "src"
MISSING = "This version of onetrunk has no command that lists the keys of a recipe."
log = logging.getLogger(__name__)


def recipe_keys() -> str | None:
    """What the command prints; None where it fails."""
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "onetrunk", *COMMAND],
        env=os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1", "COLUMNS": "110", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def language_of(text: str) -> str:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return "text"
    return "toml"


class RecipeKeys(SphinxDirective):
    """`recipe-keys`, without arguments."""

    def run(self) -> list[nodes.Node]:
        text = recipe_keys()
        if text is None:
            if self.config.recipe_keys_required:
                raise ExtensionError(f"`onetrunk {' '.join(COMMAND)}` failed")
            log.info("`onetrunk %s` failed; its page is left empty", " ".join(COMMAND))
            return [nodes.note("", nodes.paragraph("", MISSING))]
        return [nodes.literal_block(text, text, language=language_of(text))]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_config_value("recipe_keys_required", True, "env", bool)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
