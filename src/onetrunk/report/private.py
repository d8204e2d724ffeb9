"""A recipe without the names of files: what is left when pictures are not to be shown."""

from __future__ import annotations

import re

EVERYBODYS = ("pocket:", "torchvision:")  # sources that tell nothing of anybody
PATHS = "source|out|init|base|pretrained|teachers|folder|file|path"
LINE = re.compile(rf"^(?P<key>\s*(?:{PATHS})\s*=\s*)(?P<value>.*)$", re.MULTILINE)
KIND = re.compile(r"""^["']([\w.]+):""")
PLAIN = re.compile(r"""^(true|false|["']\.?["'])\s*(#.*)?$""")


def without_files(recipe: str) -> str:
    """The recipe's text with dots where a path stands; a source keeps its kind."""
    return LINE.sub(_hidden, recipe)


def _hidden(line: re.Match[str]) -> str:
    value = line["value"]
    if PLAIN.match(value) or value[1:].startswith(EVERYBODYS):
        return line[0]
    kind = KIND.match(value)
    shown = f"{kind[1]}:…" if kind and line["key"].strip().startswith("source") else "…"
    return f'{line["key"]}"{shown}"'
