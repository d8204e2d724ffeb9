"""Everything worth knowing of a source before training on it, as data."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.duplicates import near_pairs
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import BLANK, GOOD, LONG, MISNAMED, TINY
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.errors import BadInput

SUSPICIOUS = {
    BLANK: "one colour all over",
    MISNAMED: "its name's ending is of another format",
    LONG: "over 5 times as long as wide",
    TINY: "a side below 8 pixels",
}


@dataclass
class Labels:
    """What one task's labels look like."""

    task: str
    kind: str
    classes: list[str]
    counts: dict[str, dict[str, int]]  # split -> class -> images
    unlabelled: dict[str, int]  # split -> images
    missing: dict[str, list[str]]  # split -> classes without an image
    numbers: dict[str, list[float]]  # regress: split -> least, mean, greatest
    unit: str = ""  # of numbers and depth

    def extremes(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """The largest and the smallest class of the training images."""
        train = self.counts.get("train")
        if not train:
            return None
        return max(train.items(), key=lambda c: c[1]), min(train.items(), key=lambda c: c[1])


@dataclass
class Inspection:
    """What `onetrunk data SOURCE` shows; `asdict` of it is its JSON."""

    source: str
    splits: dict[str, int]  # readable images
    how: str  # the splits were made
    tasks: list[Labels]
    sizes: dict[
        str, list[int]
    ]  # least, median, greatest height and width; [] where none is readable
    trained_at: list[int]  # height, width
    mean: list[float]
    std: list[float]
    unreadable: dict[str, str]  # file -> why
    suspicious: dict[str, list[str]]  # what -> files
    exact: list[list[str]]  # [file, file]: the same content in two splits
    near: list[list[str]]  # [file, file]: nearly the same picture in two splits
    conflicts: list[list[str]]  # [file, file]: the same content under two labels
    warnings: list[str]
    refused: str  # why training would refuse this source; empty where it would not
    cache: dict[str, Any] = field(default_factory=dict)  # where the decoded images are, and bytes

    def to_json(self) -> dict[str, Any]:
        """A plain document."""
        return asdict(self)


def inspect(domain: Domain) -> Inspection:
    """Look at every image of a domain's source once."""
    index, decoded = domain.index, domain.decoded
    scan = decoded.scan
    good = scan["status"] == GOOD
    try:
        domain.check()
        refused = ""
    except BadInput as error:
        refused = str(error)
    sizes: dict[str, list[int]] = {"height": [], "width": []}
    if good.any():
        for side in sizes:
            v = scan[side][good]
            sizes[side] = [int(v.min()), int(np.median(v)), int(v.max())]
    has_train = len(domain.good("train")) > 0
    mean, std = domain.stats("train") if has_train else ((0.0,) * 3, (0.0,) * 3)
    exact, conflicts = _same(domain, good)
    folder = decoded.folder
    return Inspection(
        source=str(domain.source),
        splits={split: len(domain.good(split)) for split in SPLITS},
        how=index.how,
        tasks=[_labels(task, domain, good) for task in domain.tasks],
        sizes=sizes,
        trained_at=list(domain.shape.size),
        mean=list(mean),
        std=list(std),
        unreadable={index.keys[row]: why for row, why in decoded.reasons.items()},
        suspicious={
            what: [index.keys[i] for i in np.flatnonzero(good & (scan["flags"] & bit > 0))]
            for bit, what in SUSPICIOUS.items()
            if (good & (scan["flags"] & bit > 0)).any()
        },
        exact=exact,
        near=_near(domain, good, {tuple(pair) for pair in exact}),
        conflicts=conflicts,
        warnings=index.warnings,
        refused=refused,
        cache={
            "folder": str(folder),
            "bytes": sum(f.stat().st_size for f in folder.iterdir()),
            "pixels": decoded.frames.folder is not None,
        },
    )


def _labels(task: Task, domain: Domain, good: NDArray[np.bool_]) -> Labels:
    found = Labels(task.name, task.kind, list(task.classes), {}, {}, {}, {}, task.unit)
    column = domain.index.labels.get(task.name)
    if column is None:  # dense: counted by pixels, not by images
        return found
    for split in SPLITS:
        rows = domain.index.rows(split)
        part = column[rows[good[rows]]]
        if task.kind == "regress":
            known = ~np.isnan(part).any(1)
            if known.any():
                v = part[known]
                found.numbers[split] = [float(v.min()), float(v.mean()), float(v.max())]
        elif task.kind == "multilabel":
            known = (part != NO_LABEL).all(1) if len(part) else np.zeros(0, np.bool_)
            counts = (part[known] == 1).sum(0) if len(part) else np.zeros(task.width, int)
        else:
            known = part != NO_CLASS
            counts = np.bincount(part[known], minlength=task.width)
        found.unlabelled[split] = int((~known).sum())
        if task.classes and known.any():
            names = dict(zip(task.classes, counts.tolist(), strict=True))
            found.counts[split] = names
            found.missing[split] = [name for name, n in names.items() if n == 0]
    return found


def _same(domain: Domain, good: NDArray[np.bool_]) -> tuple[list[list[str]], list[list[str]]]:
    """Files of one content: pairs across splits, and pairs under two labels."""
    index = domain.index
    rows = np.flatnonzero(good)
    digest = np.ascontiguousarray(domain.decoded.scan["digest"][rows])
    order = np.lexsort((rows, digest[:, 1], digest[:, 0]))
    exact: list[list[str]] = []
    conflicts: list[list[str]] = []
    labelled: dict[str, int] = {}  # the last row of this content that a task has a label for
    for a, b in itertools.pairwise(order):  # chains: a–b, b–c
        if (digest[a] != digest[b]).any():
            labelled = {}
            continue
        i, j = rows[a], rows[b]
        if index.split[i] != index.split[j]:
            exact.append([index.keys[i], index.keys[j]])
        other: int | None = None
        for name, column in index.labels.items():
            if column.ndim > 1:
                continue
            if column[i] != NO_CLASS:
                labelled[name] = i
            known = labelled.get(name)
            if known is not None and column[j] not in (NO_CLASS, column[known]):
                other = known
        if other is not None:
            conflicts.append([index.keys[other], index.keys[j]])
    return exact, conflicts


def _near(domain: Domain, good: NDArray[np.bool_], known: set[tuple[str, ...]]) -> list[list[str]]:
    """Pairs across splits that look nearly alike; the exact ones are listed already."""
    index, scan = domain.index, domain.decoded.scan
    blank = scan["flags"] & BLANK > 0  # blank images are all alike, and named as such
    part = [np.flatnonzero(good & ~blank & (index.split == code)) for code in range(len(SPLITS))]
    exact = {frozenset(pair) for pair in known}
    found: list[list[str]] = []
    for a, b in ((1, 0), (2, 0), (2, 1)):
        if len(part[a]) == 0 or len(part[b]) == 0:
            continue
        for i, j in near_pairs(scan["thumb"][part[a]], scan["thumb"][part[b]], limit=10_000):
            pair = [index.keys[part[a][i]], index.keys[part[b][j]]]
            if frozenset(pair) not in exact:
                found.append(pair)
    return found
