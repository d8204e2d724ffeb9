"""The page's part on the network itself: answers in pictures, and what happens inside."""

from __future__ import annotations

import numpy as np

from onetrunk.report.charts import heat, mark, scatter, shapes
from onetrunk.report.dense import swatch
from onetrunk.report.findings import Findings
from onetrunk.report.html import Html, el
from onetrunk.report.picture import Picture
from onetrunk.report.pictures import Example, Shown
from onetrunk.report.words import figure, note, section

SIDE = 84  # pixels of a thumbnail on the page
SWATCHES = 40
NONE = {True: "None of these images is answered wrong.", False: "None of them is answered right."}


def pictures_part(findings: Findings) -> Html | None:
    """Test images with the evaluated network's predictions."""
    if not findings.shown:
        return None
    inside = [_maps(shown) if shown.maps else _rows(shown) for shown in findings.shown]
    return section(
        "pictures",
        "Right and wrong predictions",
        note(
            "Test images as the network sees them, chosen from a seeded sample of each domain's "
            "test split as each heading says."
        ),
        inside,
    )


def _rows(shown: Shown) -> Html:
    rows: list[Html] = []
    for heading, predicted in shown.rows:
        items = [_examples(one, shown.kind) for one in predicted]
        rows.append(el("figure", el("h4.kind", heading), el("ul.pictures", items)))
    if len(rows) == 1:
        rows.append(note(NONE[bool(shown.rows[0][1][0].right)]))
    name = shown.domain if shown.task == shown.kind else f"{shown.domain}/{shown.task}"
    seen = el("small", f" from {shown.seen:,} test images")
    return el("div", el("h3", name, seen), rows)


def _examples(one: Example, kind: str) -> Html:
    alt = f"an image of {one.truth}, " + ("so answered" if one.right else f"answered {one.said}")
    images = [_image(picture, alt) for picture in one.pictures]
    css = "right" if one.right else "wrong"
    sure = f" {100 * one.score:.0f}\u00a0%" if one.score is not None and kind == "classify" else ""
    words: list[Html] = []
    truth, said = el("bdi", one.truth), el("bdi", one.said)  # a name may run right to left
    if kind == "classify" and one.right:
        words.append(el(f"span.truth.{css}", "✓ ", truth, sure))
    else:
        words.append(el("span.truth", truth))
        words.append(el(f"span.{css}", "✓ " if one.right else "✗ ", said, sure))
    file = el("span.file", el("bdi", one.file), attributes={"title": one.file})
    return el("li", images, words, file)


def _image(picture: Picture, alt: str) -> Html:
    zoom = SIDE / max(picture.width, picture.height)
    if zoom >= 1.5:
        zoom = round(zoom)
    size = {"width": round(picture.width * zoom), "height": round(picture.height * zoom)}
    css = "img.small" if picture.small else "img"
    return el(css, attributes={"src": picture.uri, "alt": alt, **size})


def _maps(shown: Shown) -> Html:
    parts: list[Html] = []
    for example in shown.maps:
        first, *rest = example.tiles
        rows = [[first, *rest[0::2]], rest[1::2]]  # the image and all truths, all predictions
        tiles = [_tile(name, tile, example.what) for name, tile in rows[0]]
        tiles += [el("div"), *(_tile(name, tile, example.what) for name, tile in rows[1])]
        head = el("h4.kind", example.what, " ", el("small", example.file))
        columns = {"style": f"--columns:{len(rows[0])}"}
        parts.append(el("figure", head, el("div.maps", tiles, attributes=columns)))
    colours = [
        el("li", el("i", attributes={"style": f"background:{swatch(i)}"}), el("bdi", name))
        for i, name in enumerate(shown.classes[:SWATCHES])
    ]
    seen = el("small", f" from {shown.seen:,} test images")
    return el(
        "div",
        el("h3", f"{shown.domain}: {shown.task}", seen),
        parts,
        el("ul.swatches", colours) if colours else None,
        note(
            "Classes in the colours above. Depth: near is bright, far is dark, truth and "
            "prediction on one scale. Normals: x, y, z as red, green, blue. Black: not labelled."
        ),
    )


def _tile(name: str, tile: Picture, what: str) -> Html:
    size = {"width": tile.width, "height": tile.height}
    image = {"src": tile.uri, "alt": f"{name}, {what}", **size}
    return el("div", el("img.small" if tile.small else "img", attributes=image), el("span", name))


def inside_part(findings: Findings) -> Html | None:
    """Embeddings, similarity by depth, agreement of gradients."""
    parts = [_embedding(findings), _similarity(findings), _conflict(findings)]
    if not any(parts):
        return None
    return section("inside", "What happens inside", shapes(), parts)


def _embedding(findings: Findings) -> Html | None:
    found = findings.embedding
    if found is None:
        return None
    label = (
        f"{len(found.xy)} images of {len(found.domains)} domains in the plane, by the features "
        "that the heads read"
    )
    drawn = scatter(found.xy, found.domain, found.domains, label)
    legend = el("ul.legend", [el("li", mark(i), n) for i, n in enumerate(found.domains)])
    caption = (
        f"{len(found.xy):,} test images, as many of each domain, by their pooled features "
        f"({found.features} numbers; principal components with {100 * found.kept:.0f} % of the "
        f"variance, then t-SNE, perplexity {found.perplexity:.0f}). Neighbours mean something, "
        "distances between far groups and the sizes of groups do not. Of each image's nearest "
        f"neighbour in the features, {100 * found.own_neighbour:.0f} % are of its own domain."
    )
    return el("div", el("h3", "The domains in the features"), figure([drawn, legend], caption))


def _similarity(findings: Findings) -> Html | None:
    found = findings.similarity
    if found is None:
        return None
    means = found.mean()
    tables = [
        heat(found.domains, matrix, None, f"{depth}: mean {mean:.2f}")
        for i, (depth, matrix, mean) in enumerate(zip(found.depths, found.cka, means, strict=True))
        if i == 0 or not np.allclose(matrix, found.cka[i - 1], equal_nan=True)  # pooled maps
    ]
    who = "networks" if findings.evaluated.separate else "slots of the one network"
    caption = (
        f"Linear CKA (Kornblith et al. 2019, unbiased) of {found.images} validation images of all "
        f"domains, run through the {who} of the one domain and of the other; shallow to deep, maps "
        "averaged over pixels. 1: the same features but for turning and scaling; 0: unrelated."
    )
    boxes = [el("div.scroll", table, attributes={"tabindex": 0}) for table in tables]
    return el(
        "div",
        el("h3", "How alike the domains' features are, by depth"),
        figure(el("div.heats", boxes), caption),
    )


def _conflict(findings: Findings) -> Html | None:
    found = findings.conflict
    if found is None:
        return None
    images = " to ".join(map(str, sorted({min(found.images), max(found.images)})))
    caption = (
        "Cosine between two domains' gradients of the validation loss on the "
        f"{found.shared:,} parameters that all share, at the end of training, over "
        f"{images} images each. Above 0 a step for the one helps "
        "the other, below 0 it harms. In brackets: one half of a domain's own images against the "
        "other half, which says how much of a cosine is noise. "
        f"{100 * found.share_in_conflict():.0f} % of the pairs are below 0."
    )
    table = heat(found.domains, found.cosine, found.own.tolist(), "cosine of gradients")
    return el(
        "div",
        el("h3", "Whether the domains' gradients agree"),
        figure(el("div.heats", el("div.scroll", table, attributes={"tabindex": 0})), caption),
    )
