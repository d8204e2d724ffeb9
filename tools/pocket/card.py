"""Write docs/pocket.md and its contact sheets from the cards of the embedded domains."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sheet import ASSETS, ROOT, SPLITS

PAGE = ROOT / "docs" / "pocket.md"
PICTURES = ROOT / "docs" / "pocket"
ROWS, COLUMNS = 6, 14
NAMED = 30  # classes that are listed; the others are counted
LIMIT = 60_000  # bytes of a contact sheet; a larger one is stored with fewer colours
INTRODUCTION = """# The embedded domains

`pocket:NAME` is a source that needs no download: small domains that come with onetrunk, for the
demo, the tests and first experiments. Each stands for one of the data sets of Bilen & Vedaldi,
*Universal representations: The missing link between faces, text, planktons, and cat breeds* (2017),
or for a kind of task that is missing there. They are small on purpose: their errors compare
methods, and do not tell how good a method is on the large data set.

The splits are fixed. All images of one origin (a font, a map, an icon with its variants) are in
one split, and no image is in two splits. Except for the few domains whose entry says otherwise, at
most one test image in a hundred is a near duplicate of a training image.

This page is written by `python tools/pocket/card.py` from `src/onetrunk/data/assets/*.json`. Each
domain is built by the tool of its name in `tools/pocket/`.
"""


def cards() -> dict[str, dict[str, Any]]:
    """Return all cards by name."""
    return {p.stem: json.loads(p.read_text("utf-8")) for p in sorted(ASSETS.glob("*.json"))}


def bytes_of(name: str) -> int:
    """Return the bytes that a domain adds to the package."""
    return sum(path.stat().st_size for path in ASSETS.glob(f"{name}.*"))


def sheet(name: str, card: dict[str, Any]) -> Path:
    """Return the path of the training images; of a dense domain, of the colours."""
    plain = ASSETS / f"{name}.train.{card['format']}"
    return plain if plain.exists() else ASSETS / f"{name}.train.rgb.{card['format']}"


def tiles(name: str, card: dict[str, Any]) -> list[Image.Image]:
    """Return training images in the order of classes, evenly spread over the classes."""
    height, width = card["size"]
    split = card["splits"]["train"]
    labels = np.array(split.get("labels") or np.zeros(split["count"]))
    order = np.argsort(labels, kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(ROWS * COLUMNS, len(order))).astype(int)]
    with Image.open(sheet(name, card)) as file:
        picture = file.convert("RGB")
    corners = [(i % split["columns"] * width, i // split["columns"] * height) for i in shown]
    return [picture.crop((x, y, x + width, y + height)) for x, y in corners]


def contact_sheet(name: str, card: dict[str, Any]) -> bytes:
    """Return a PNG of a domain's tiles, enlarged without interpolation."""
    height, width = card["size"]
    scale = 4 if width < 16 else 2 if width < 64 else 1
    step_x, step_y = width * scale + 2, height * scale + 2
    page = Image.new("RGB", (COLUMNS * step_x + 2, ROWS * step_y + 2), (127, 127, 127))
    for i, tile in enumerate(tiles(name, card)):
        large = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        page.paste(large, (i % COLUMNS * step_x + 2, i // COLUMNS * step_y + 2))
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        few = page.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LIMIT:
            break
    return buffer.getvalue()


def summary(all_cards: dict[str, dict[str, Any]]) -> str:
    """Return the table of all domains."""
    lines = [
        "| domain | content | stands for | size | classes | train | val | test | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, card in all_cards.items():
        counts = " | ".join(f"{card['splits'][split]['count']:,}" for split in SPLITS)
        lines.append(
            f"| [{name}](#{name}) | {card['title']} | {card['counterpart']} | "
            f"{size(card)} | {len(card['classes'])} | {counts} | {bytes_of(name) / 1e6:.2f} |"
        )
    total = sum(bytes_of(name) for name in all_cards)
    return "\n".join(lines) + f"\n\nTotal: {total / 1e6:.1f} MB.\n"


def size(card: dict[str, Any]) -> str:
    """Return height × width."""
    return f"{card['size'][0]}×{card['size'][1]}"


def classes(card: dict[str, Any]) -> str:
    """Return the names of the classes, of many only the first ones."""
    names = ", ".join(card["classes"][:NAMED])
    rest = len(card["classes"]) - NAMED
    return f"{len(card['classes'])}: {names}" + (f" … and {rest} more" if rest > 0 else "")


def section(name: str, card: dict[str, Any]) -> str:
    """Return the section of one domain."""
    counts = ", ".join(f"{split} {card['splits'][split]['count']:,}" for split in SPLITS)
    return f"""## {name}

**{card["title"]}.** {card["about"]}

![{card["title"]}: training images in class order](pocket/{name}.png)

- **Kind:** {card["kind"]}, {size(card)} pixels
- **Images:** {counts}; {bytes_of(name) / 1e6:.2f} MB
- **Classes:** {classes(card)}
- **Grouping:** {card["grouping"]}
- **Stands for:** {card["counterpart"]}
- **Source:** {card["package"]}
- **Licence:** {card["licence"]}
"""


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    all_cards = cards()
    for name, card in all_cards.items():
        picture = contact_sheet(name, card)
        (PICTURES / f"{name}.png").write_bytes(picture)
        print(f"{name}: contact sheet of {len(picture) / 1000:.0f} kB")
    sections = [section(name, card) for name, card in all_cards.items()]
    PAGE.write_text("\n".join([INTRODUCTION, summary(all_cards), *sections]), "utf-8")


if __name__ == "__main__":
    main()
