"""Contact sheets: a domain's images by class, or beside their dense targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from onetrunk.data.class_counts import is_labelled
from onetrunk.data.domain import Domain
from onetrunk.data.drawing import MAGMA, TABLEAU, colour_scale, signature, text_font
from onetrunk.data.pixels import U8
from onetrunk.data.split import Split
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.errors import BadInput, Failed, printable
from onetrunk.store.atomic import atomic
from onetrunk.store.places import check_file

COLUMNS = 12  # images of a class
ROWS = 60  # the most classes that are shown
TILE = 64  # pixels; smaller images are enlarged to about this height
PAPER, INK, GREY = (250, 250, 248), (20, 20, 20), (120, 120, 120)
GAP, TEXT, LEFT = 4, 15, 150  # pixels
Row = tuple[str, list[U8]]  # a name and its tiles


def contact_sheet(domain: Domain, path: Path, split: str = "train") -> None:
    """Write a PNG of the images of a split with their labels."""
    check_path(path)
    part = domain.splits[split]
    if len(part) == 0:
        raise BadInput(f"{domain.name}: the {split} split has no images to draw")
    dense = [task for task in domain.tasks if task.dense]
    rows = _dense_rows(part, dense) if dense else _class_rows(part, domain.tasks)
    _write(rows, domain, path)


def rows_sheet(domain: Domain, path: Path, rows: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Write a PNG of named rows of images.

    Args:
        rows: The name of each row, and its images by their places in the domain's index; of more
            than fit into a row or on a sheet, the first ones are shown.
    """
    check_path(path)
    frames = domain.decoded.frames
    tiles: list[Row] = [
        (name, list(frames.read(np.array(places[:COLUMNS]))[0])) for name, places in rows[:ROWS]
    ]
    if len(rows) > ROWS:
        tiles.append((f"… and {len(rows) - ROWS} more rows", []))
    _write(tiles, domain, path)


def _write(rows: list[Row], domain: Domain, path: Path) -> None:
    """Write a PNG of rows of tiles."""
    picture = _compose(rows, TILE / domain.shape.size[0])
    try:
        with atomic(path) as file:
            picture.save(file, "PNG", pnginfo=signature())
    except OSError as error:
        raise Failed(
            f"cannot write {path}", got=error.strerror or str(error), try_="another folder"
        ) from None


def check_path(path: Path) -> None:
    """Raise BadInput if a path is not that of a PNG file that can be written."""
    if path.suffix.lower() != ".png" or path.is_dir():
        raise BadInput("expected the path of a PNG file", got=str(path), try_="--sheet sheet.png")
    check_file(path, "--sheet")


def _class_rows(part: Split, tasks: tuple[Task, ...]) -> list[Row]:
    """Return a row per class of the first task with classes, or plain rows without one."""
    task = next((t for t in tasks if t.classes and not t.dense), None)
    if task is None:
        places = np.linspace(0, len(part) - 1, min(len(part), 10 * COLUMNS)).astype(int)
        images = _images(part, places)
        return [("", images[i : i + COLUMNS]) for i in range(0, len(images), COLUMNS)]
    labels = part.label(task.name)
    rows: list[Row] = []
    for i, name in enumerate(task.classes[:ROWS]):
        places = np.flatnonzero(labels[:, i] == 1 if task.kind == "multilabel" else labels == i)
        shown = places[np.linspace(0, len(places) - 1, min(len(places), COLUMNS)).astype(int)]
        rows.append((f"{name} ({len(places)})", _images(part, shown)))
    known = is_labelled(task, labels)
    if not known.all():
        places = np.flatnonzero(~known)
        rows.append((f"not labelled ({len(places)})", _images(part, places[:COLUMNS])))
    if len(task.classes) > ROWS:
        rows.append((f"… and {len(task.classes) - ROWS} more classes", []))
    return rows


def _dense_rows(part: Split, tasks: list[Task]) -> list[Row]:
    """Return rows of image, class map, depth and normals, for images spread over the split."""
    places = np.linspace(0, len(part) - 1, min(len(part), 16)).astype(int)
    images, targets = part.stored(places)
    rows: list[Row] = []
    for i, place in enumerate(places.tolist()):
        tiles = [images[i]]
        for task in tasks:
            target = targets[task.name][i]
            if task.kind == "segment":
                tiles.append(colour_classes(target))
            elif task.kind == "depth":
                tiles.append(colour_depth(target, task.inverse))
            else:
                tiles.append(colour_normals(target))
        rows.append((part.key(place), tiles))
    names = " | ".join(["image", *(task.name for task in tasks)])
    rows.insert(0, (names, []))
    segment = next((task for task in tasks if task.kind == "segment"), None)
    if segment is not None:
        swatch = [np.full((1, 1), i, np.uint8) for i in range(min(segment.width, 40))]
        blocks = [np.tile(colour_classes(s), (12, 24, 1)) for s in swatch]
        rows += [(name, [block]) for name, block in zip(segment.classes[:40], blocks, strict=True)]
    return rows


def colour_classes(segment_HW: U8) -> U8:
    """Colour a class map; pixels without a label are black."""
    coloured: U8 = TABLEAU[segment_HW % len(TABLEAU)]
    coloured[segment_HW == NO_PIXEL] = 0
    return coloured


def colour_depth(depth_HW: NDArray[np.float32], inverse: bool = False) -> U8:
    """Colour a depth map by inverse depth: near is bright; pixels without depth are black."""
    known = depth_HW > 0
    near = depth_HW if inverse else np.where(known, 1 / np.maximum(depth_HW, 1e-6), 0)
    low, high = (near[known].min(), near[known].max()) if known.any() else (0.0, 1.0)
    share = 0.1 + 0.9 * (near - low) / max(high - low, 1e-9)
    coloured = colour_scale(MAGMA, share)
    coloured[~known] = 0
    return coloured


def colour_normals(normals_HW3: NDArray[np.floating]) -> U8:
    """Colour normals, x, y, z as red, green, blue; pixels without a normal are black."""
    normals = normals_HW3.astype(np.float32)
    coloured = ((normals + 1) * 127.5).round().astype(np.uint8)
    coloured[(normals == 0).all(-1)] = 0
    return coloured


def _images(part: Split, places: NDArray[np.int64]) -> list[U8]:
    return list(part.stored(places)[0]) if len(places) else []


def _compose(rows: list[Row], zoom: float) -> Image.Image:
    """Draw rows of tiles with their names; small tiles are enlarged by an integer factor."""
    if zoom >= 1:
        n = round(zoom)
        rows = [(name, [t.repeat(n, 0).repeat(n, 1) for t in tiles]) for name, tiles in rows]
    elif zoom <= 0.5:  # otherwise a sheet of large images takes gigabytes
        rows = [(name, [_reduced(t, round(1 / zoom)) for t in tiles]) for name, tiles in rows]
    rows = [(" ".join(printable(name).split()), tiles) for name, tiles in rows]
    font = text_font(11)
    wide = max((sum(t.shape[1] + GAP for t in tiles) for _, tiles in rows), default=0)
    height = [max([TEXT, *(t.shape[0] for t in tiles)]) + GAP for _, tiles in rows]
    sheet = Image.new("RGB", (LEFT + max(wide, 200) + GAP, sum(height) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    y = GAP
    for (name, tiles), row_height in zip(rows, height, strict=True):
        x = LEFT if tiles else GAP
        if tiles:
            while name and pen.textlength(name, font) > LEFT - 2 * GAP:
                name = name[:-2].rstrip("…") + "…"
        pen.text((GAP, y), name, fill=INK if tiles else GREY, font=font)
        for tile in tiles:
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (x, y))
            x += tile.shape[1] + GAP
        y += row_height
    return sheet


def _reduced(tile: U8, times: int) -> U8:
    return np.asarray(Image.fromarray(np.ascontiguousarray(tile)).reduce(times))
