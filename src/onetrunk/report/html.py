"""Markup that cannot be forgotten to be escaped: every plain text is, and only `Html` is not."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

VOID = frozenset({"br", "img", "meta", "link", "hr", "col", "wbr"})  # of HTML: no end tag
EMPTY = frozenset({"circle", "line", "path", "polyline", "rect", "use", "polygon"})  # of SVG


class Html(str):
    """A text that is markup already; `el` makes it, and `join`."""

    __slots__ = ()


Inside = str | int | Iterable["Inside"] | None


def el(tag: str, *inside: Inside, attributes: Mapping[str, object] | None = None) -> Html:
    """`el("td.num", "4.2", attributes={"title": name})`: one element, its texts escaped.

    Behind the tag's dots are its classes. An attribute that is None is left out.
    """
    name, *classes = tag.split(".")
    given: dict[str, object] = {"class": " ".join(classes)} if classes else {}
    given |= attributes or {}
    said = "".join(
        f' {key}="{html.escape(str(value), quote=True)}"'
        for key, value in given.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{said}>")
    if name in EMPTY and not inside:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>{join(*inside)}</{name}>")


def join(*inside: Inside) -> Html:
    """Texts, escaped, and markup, one behind the other."""
    return Html("".join(map(_text, inside)))


def _text(inside: Inside) -> str:
    if inside is None:
        return ""
    if isinstance(inside, Html):
        return inside
    if isinstance(inside, str | int):
        return html.escape(str(inside), quote=True)
    return "".join(map(_text, inside))
