"""Every relative link of the Markdown files leads to a file, and to a heading where it names one.

Links to other sites are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob(".github/*.md")])
FENCE = re.compile(r"^( *)(```+|~~~+)[^\n]*\n.*?^\1\2[^\n]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
SITE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links(text: str) -> Iterator[str]:
    """Return what a page links to, pictures included, except in code and comments."""
    text = CODE.sub("", COMMENT.sub("", FENCE.sub("", text)))
    for pattern in (LINK, REFERENCE):
        yield from (match[1] for match in pattern.finditer(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, the same on GitHub and in the built site."""
    found: set[str] = set()
    for match in HEADING.finditer(COMMENT.sub("", FENCE.sub("", text))):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        unique, n = slug, 0
        while unique in found:
            n += 1
            unique = f"{slug}-{n}"
        found.add(unique)
    return found


def problem(page: Path, link: str) -> str | None:
    """Return what is wrong with a link, or None."""
    if SITE.match(link) or link.startswith("//"):
        return None
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.is_relative_to(page.parents[-2]) or not target.exists():
        return f"{link}: there is no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8")):
        return f"{link}: {target.name} has no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    found = [problem(page, link) for link in links(page.read_text("utf-8"))]
    assert [each for each in found if each] == []


def test_every_page_of_the_site_is_in_its_contents() -> None:
    index = (ROOT / "docs/index.md").read_text("utf-8")
    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    }
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")}
    assert listed == pages - {"index"}


PAGE = """
# Some title, with `code`

[here](#some-title-with-code) ![picture](there.png) <!-- [no](no.md) --> `[no](no.md)`

```python
x[0](no.md)
# no heading
```

## Twice
## Twice

[site]: https://example.org
"""


def test_links_and_anchors_are_found() -> None:
    assert list(links(PAGE)) == ["#some-title-with-code", "there.png", "https://example.org"]
    assert anchors(PAGE) == {"some-title-with-code", "twice", "twice-1"}


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert problem(page, "https://example.org") is None
    assert problem(page, "#twice-1") is None
    assert problem(page, "page.md#twice") is None
    assert "no such file" in (problem(page, "there.png") or "")
    assert "no such heading" in (problem(page, "page.md#three-times") or "")
