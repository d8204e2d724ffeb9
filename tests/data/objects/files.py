"""Files for tests of sources in memory."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.helpers.fakes import picture

Pair = tuple[str, str]


def photos(folder: Path) -> list[Pair]:
    """Write photos/cat and photos/dog with 20 images each; return their paths and classes."""
    pairs = []
    for number, kind in enumerate(("cat", "dog")):
        (folder / "photos" / kind).mkdir(parents=True)
        for i in range(20):
            path = f"photos/{kind}/{i:02}.png"
            Image.fromarray(picture(20 * number + i)).save(folder / path)
            pairs.append((path, kind))
    return pairs
