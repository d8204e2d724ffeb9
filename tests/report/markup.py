"""A check of every report's markup."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

NO_END_TAG = ("meta", "link", "img", "br")
FORBIDDEN = {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}


class Page(HTMLParser):
    """The tags of a page with their attributes, and the texts in each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unexpected: list[str] = []  # end tags
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in NO_END_TAG:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unexpected.append(tag)

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def having(self, css: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements with exactly this class."""
        return [given for _, given in self.tags if given.get("class") == css]


def check(text: str) -> Page:
    """Check that a report is well-formed, self-contained, free of scripts and accessible."""
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.unexpected == [] and page.open == []
    assert not {tag for tag, _ in page.tags} & FORBIDDEN
    for tag, given in page.tags:
        for key, value in given.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href"):
                assert (value or "").startswith(("data:", "#")), (tag, value)
        if tag == "img":
            assert given.get("alt")
        if given.get("role") == "img":
            assert given.get("aria-label")
    assert "url(" not in text and "@import" not in text
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    links = {given["href"] for tag, given in page.tags if tag == "a"}
    assert links <= {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert not {"nan", "None"} & set(re.findall(r"[\w.]+", re.sub(r"base64,[^\"]+", "", text)))
    assert len(text) < 3_000_000
    return page
