"""The images of each class in the splits: counts, missing classes, and classes with few images."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.splitting import EXAMPLES, SPLITS
from onetrunk.data.stratified import Codes
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.display import plural
from onetrunk.errors import BadInput, shorten

FEW = 5  # a class with fewer val or test images is reported: its score is little more than chance


def is_labelled(task: Task, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which images have a label of a task that is not dense."""
    if task.kind == "regress":
        known: NDArray[np.bool_] = ~np.isnan(labels).any(1)
    elif task.kind == "multilabel":
        known = (labels != NO_LABEL).any(1)
    else:
        known = labels != NO_CLASS
    return known


def class_counts(task: Task, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of images of each class."""
    if task.kind == "multilabel":
        return np.asarray((labels == 1).sum(0))
    return np.bincount(labels[labels != NO_CLASS], minlength=len(task.classes))


def check_classes(
    task: Task,
    values: NDArray[Any],
    codes: NDArray[np.uint8],
    name: str,
    errors: list[BadInput],
    warnings: list[str],
) -> None:
    """Append an error for a class that is missing in train, a warning for one in val or test."""
    for code, split in enumerate(SPLITS):
        labels = values[codes == code]
        if not is_labelled(task, labels).any():
            problem, try_ = f"{split} has no labelled image", "label some, or leave out the task"
        else:
            counts: list[int] = class_counts(task, labels).tolist() if task.classes else []
            missing = [c for c, n in zip(task.classes, counts, strict=True) if n == 0]
            if not missing:
                continue
            problem = (
                f"{split} lacks {len(missing)} of {len(task.classes)} classes: "
                f"{shorten(missing, EXAMPLES)}"
            )
            try_ = "add images, or assign images to the splits by name"
        if split == "train":
            errors.append(BadInput(f"{name}: task {task.name}: {problem}", try_=try_))
        else:
            warnings.append(f"task {task.name}: {problem}")


def few_images(task: Task, values: NDArray[Any], codes: Codes, splits: Collection[str]) -> str:
    """Return a line on classes with few images in these splits; "" if there are none.

    Classes without any image are not counted, as `check_classes` reports them.
    """
    parts = []
    for code, split in enumerate(SPLITS):
        counts = class_counts(task, values[codes == code])
        rare = np.flatnonzero((counts > 0) & (counts < FEW))
        if len(rare) and split in splits:
            rare = rare[np.argsort(counts[rare], kind="stable")]
            named = shorten([f"{task.classes[c]} {counts[c]}" for c in rare], EXAMPLES)
            parts.append(
                f"{len(rare):,} of {plural(len(task.classes), 'class', 'classes')} "
                f"have fewer than {FEW} {split} images ({named})"
            )
    return f"task {task.name}: {'; '.join(parts)}" if parts else ""
