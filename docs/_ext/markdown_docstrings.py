"""Docstrings are written in Markdown; autodoc expects reStructuredText.

Only what docstrings use is translated: `code` becomes literal text, indented and fenced blocks
become literal blocks, and characters that have a meaning in reStructuredText are escaped
elsewhere. Field lists (`:param x:`) and Google's sections (`Args:`) pass unchanged.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
FIELD = re.compile(r"^\s*:[a-z]+[^:]*:(?=\s|$)")
SECTION = re.compile(
    r"^(Args|Arguments|Attributes|Example|Examples|Note|Raises|References|Returns|Warns|Yields):$"
)
LIST = re.compile(r"^\s*([-*+]|\d+[.)])\s")


def translate(lines: list[str]) -> list[str]:
    """The lines of a docstring, its common indentation removed, as reStructuredText."""
    out: list[str] = []
    block = False  # inside of an indented literal block
    fence: str | None = None  # what ends a fenced block
    attached = False  # an indented line continues a list item, a field or a section
    for line in lines:
        if fence is not None:
            if line.strip().startswith(fence):
                fence = None
                out.append("")
            else:
                out.append("   " + line)
            continue
        if line.strip().startswith("```"):
            fence = "```"
            out += ["", "::", ""]
            continue
        if not line.strip():
            out.append("")
            continue
        indented = line.startswith("    ")
        if indented and not attached and not block and (not out or not out[-1].strip()):
            out += ["::", ""]
            block = True
        elif not indented:
            if block:
                block = False
                out.append("")
            attached = bool(FIELD.match(line) or SECTION.match(line) or LIST.match(line))
        out.append(line if block else inline(line))
    return out


def inline(line: str) -> str:
    """One line of text: code as literals, everything else escaped."""
    field = FIELD.match(line)
    start = field.end() if field else 0
    bullet = LIST.match(line)
    if bullet:
        start = bullet.end()
    out, at = [line[:start]], start
    for code in CODE.finditer(line, start):
        out.append(escape(line[at : code.start()]))
        if at != code.start() and line[code.start() - 1].isalnum():
            out.append("\\ ")
        out.append(f"``{code[2].strip()}``")
        if code.end() < len(line) and line[code.end()].isalnum():
            out.append("\\ ")
        at = code.end()
    out.append(escape(line[at:]))
    return "".join(out)


def escape(text: str) -> str:
    text = re.sub(r"([\\*|`])", r"\\\1", text)
    return re.sub(r"_(?=\W|$)", r"\\_", text)  # a name that ends with _ would be a reference


def process(
    _app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    lines[:] = translate(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
