"""Settings of the documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "src"), str(HERE / "_ext")]

project = "onetrunk"
author = "The onetrunk authors"
copyright = "2026, The onetrunk authors"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "version"
]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "markdown_docstrings",
    "public_api",
    "command_line",
    "source_tree",
]
exclude_patterns = ["_ext"]

highlight_language = "text"  # of blocks that name no language

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "onetrunk"
html_static_path = ["_static"]
html_css_files = ["onetrunk.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/onetrunk/onetrunk/",
    "source_branch": "main",
    "source_directory": "docs/",
}
