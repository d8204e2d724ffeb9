"""Pictures of an evaluation: a confusion matrix and a reliability diagram, drawn with Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from onetrunk.data.drawing import text_font
from onetrunk.errors import printable
from onetrunk.eval.metrics.calibration import Reliability
from onetrunk.eval.metrics.confusion import ConfusionMatrix

SHOWN = 40  # classes in a picture; of more, those that are confused most
CELL = 36  # pixels
LABEL = 22  # letters of a class name
PLOT = 420  # pixels of a reliability diagram
PAPER, INK, MUTED, RULE = (255, 255, 255), (21, 24, 28), (88, 98, 112), (217, 222, 229)
BLUE, ORANGE = (29, 92, 184), (168, 75, 5)
Colour = tuple[int, int, int]


def confusion_picture(matrix: ConfusionMatrix) -> Image.Image:
    """Draw a confusion matrix: rows are true classes, columns predictions, colours shares of a row.

    Of more than 40 classes, the 40 that are confused most are drawn.
    """
    shown = matrix.most_confused(SHOWN)
    counts, font, small = shown.counts, text_font(13), text_font(11)
    shares = counts / np.maximum(_support(matrix, shown), 1)[:, None]
    rows, columns = [_name(label) for label in shown.labels], [_name(n) for n in shown.columns]
    wide = round(max(font.getlength(name) for name in columns)) + 14
    rest = len(matrix.labels) - len(shown.labels)
    title = f"rows: true class, columns: predicted; {int(matrix.cells[:, 2].sum()):,} images"
    more = f"the {len(rows)} most confused of {len(matrix.labels):,} classes" if rest else ""
    top = 50 + wide
    size = (max(wide + CELL * len(columns) + 16, 380), top + CELL * len(rows) + 16)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((12, 8), title, INK, font)
    draw.text((12, 26), more, MUTED, small)
    for i, name in enumerate(columns):
        label = Image.new("L", (wide, 18), 0)
        ImageDraw.Draw(label).text((0, 1), name, 255, font)
        turned = label.rotate(90, expand=True)
        picture.paste(INK, (wide + CELL * i + 9, top - wide - 4), turned)
    for i, name in enumerate(rows):
        y = top + CELL * i
        draw.text((wide - 8, y + CELL / 2), name, INK, font, anchor="rm")
        for j in range(len(columns)):
            x, share = wide + CELL * j, float(shares[i, j])
            draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), _mix(PAPER, BLUE, share), RULE)
            if counts[i, j]:
                text = _short(int(counts[i, j]))
                ink = PAPER if share > 0.5 else INK
                draw.text((x + CELL / 2 - 1, y + CELL / 2), text, ink, small, anchor="mm")
    return picture


def reliability_picture(found: Reliability) -> Image.Image:
    """Draw accuracy against confidence; grey bars below show the images of each bin."""
    left, top, below = 56, 44, 60
    picture = Image.new("RGB", (left + PLOT + 24, top + PLOT + below + 56), PAPER)
    draw = ImageDraw.Draw(picture)
    font, small = text_font(13), text_font(11)
    error = 100 * found.calibration_error
    draw.text((12, 12), f"calibration error (ECE) {error:.2f} %", INK, font)
    most = max(*(each.count for each in found.bins), 1)
    bottom = top + PLOT
    for tenth in range(0, 11, 2):
        x, y = left + PLOT * tenth / 10, bottom - PLOT * tenth / 10
        draw.line((left, y, left + PLOT, y), RULE)
        draw.text((left - 6, y), f"{tenth / 10:g}", MUTED, small, anchor="rm")
        draw.text((x, bottom + below + 12), f"{tenth / 10:g}", MUTED, small, anchor="mm")
    for each in found.bins:
        x0, x1 = left + PLOT * each.low + 1, left + PLOT * each.high - 1
        if each.accuracy is not None and each.confidence is not None:
            low, high = sorted((each.accuracy, each.confidence))
            draw.rectangle((x0, bottom - PLOT * each.accuracy, x1, bottom), BLUE)
            gap = ORANGE if each.confidence > each.accuracy else _mix(PAPER, BLUE, 0.4)
            draw.rectangle((x0, bottom - PLOT * high, x1, bottom - PLOT * low), None, gap, 2)
            height = (below - 10) * each.count / most
            draw.rectangle((x0, bottom + below - height, x1, bottom + below), MUTED)
    draw.line((left, bottom, left + PLOT, top), MUTED)
    draw.line((left, bottom, left + PLOT, bottom), INK)
    draw.line((left, bottom + below, left + PLOT, bottom + below), INK)
    words = "confidence; bars: accuracy, outlined: the gap to the confidence, grey: images"
    draw.text((12, bottom + below + 32), words, MUTED, small)
    return picture


def _support(matrix: ConfusionMatrix, shown: ConfusionMatrix) -> np.ndarray:
    """Return the number of images of the shown classes, in the entire matrix."""
    support = dict(zip(matrix.labels, matrix.support.tolist(), strict=True))
    return np.array([support[label] for label in shown.labels])


def _name(label: str) -> str:
    text = printable(label)
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count // 1000}k"


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    r, g, b = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return r, g, b
