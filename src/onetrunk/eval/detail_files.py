"""Files of an evaluation: classes, confusion matrices, reliability, and the worst images."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from onetrunk.data.drawing import signature
from onetrunk.eval.detail_pictures import confusion_picture, reliability_picture
from onetrunk.eval.metrics.by_class import shown_fields
from onetrunk.eval.result import TaskResult
from onetrunk.store.atomic import atomic, write_atomic
from onetrunk.store.csv_text import csv_text
from onetrunk.store.places import check_folder, mark

OWN_FILE = re.compile(r"[a-z0-9_.-]+-(classes|confusion|reliability|worst)\.(csv|png)")
BIN_FIELDS = ("low", "high", "count", "confidence", "accuracy")
IMAGE_FIELDS = ("file", "given", "predicted", "confidence", "error")


def check_details_folder(folder: Path) -> None:
    """Refuse a path that is no folder, or a folder with other files than those of an evaluation."""
    check_folder(folder, "that of an evaluation", lambda path: bool(OWN_FILE.fullmatch(path.name)))


def write_details(results: Sequence[TaskResult], folder: Path) -> list[Path]:
    """Write the files of each task into a folder and return them."""
    check_details_folder(folder)
    mark(folder, "an evaluation")  # it is no folder of images
    several = {one.domain for one in results for two in results if _same_domain(one, two)}
    written: list[Path] = []

    def text(name: str, content: str) -> None:
        # names of files and classes may have bytes that are no text
        write_atomic(folder / name, content.encode("utf-8", "backslashreplace"))
        written.append(folder / name)

    def picture(name: str, drawn: Image.Image) -> None:
        with atomic(folder / name) as file:
            drawn.save(file, "PNG", pnginfo=signature())
        written.append(folder / name)

    for one in results:
        name = f"{one.domain}.{one.task.name}" if one.domain in several else one.domain
        if classes := one.per_class():
            columns = shown_fields(classes)
            cells = [[getattr(each, column) for column in columns] for each in classes]
            header = ["class", *columns[1:]]  # the first is the label
            text(f"{name}-classes.csv", _csv(header, cells))
        if (matrix := one.confusion()) is not None:
            text(f"{name}-confusion.csv", matrix.to_csv())
            picture(f"{name}-confusion.png", confusion_picture(matrix))
        if (bins := one.reliability()) is not None:
            cells = [[getattr(each, column) for column in BIN_FIELDS] for each in bins.bins]
            text(f"{name}-reliability.csv", _csv(BIN_FIELDS, cells))
            picture(f"{name}-reliability.png", reliability_picture(bins))
        if images := one.worst(len(one.split)):
            cells = [[getattr(each, column) for column in IMAGE_FIELDS] for each in images]
            text(f"{name}-worst.csv", _csv(IMAGE_FIELDS, cells))
    return written


def _same_domain(one: TaskResult, two: TaskResult) -> bool:
    return one is not two and one.domain == two.domain


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([csv_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()
