"""Inspection of a domain before training: splits, classes, sizes, unreadable files, duplicates."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.cache_entries import bytes_in
from onetrunk.data.class_counts import class_counts, is_labelled
from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import not_a_domain
from onetrunk.data.duplicates import near_pairs
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import BLANK, GOOD, LONG, MISNAMED, TINY
from onetrunk.data.stratified import LEFT_OUT
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.display import Described, Summary, plural
from onetrunk.errors import BadInput

LONGEST = 80  # letters of a source in the summary
SUSPICIOUS = {
    BLANK: "a single colour",
    MISNAMED: "the file name has the ending of another format",
    LONG: "one side over 5 times as long as the other",
    TINY: "a side below 8 pixels",
}


@dataclass
class Labels:
    """The labels of one task.

    Attributes:
        counts: Split -> class -> images.
        unlabelled: Split -> images.
        missing: Split -> classes without an image.
        numbers: For a regress task: split -> minimum, mean, maximum.
        unit: The unit of numbers or depth.
    """

    task: str
    kind: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    missing: dict[str, list[str]]
    numbers: dict[str, list[float]]
    unit: str = ""

    def extremes(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """Return the largest and the smallest class of the training images, with their counts."""
        train = self.counts.get("train")
        if not train:
            return None
        return max(train.items(), key=lambda c: c[1]), min(train.items(), key=lambda c: c[1])


@dataclass(repr=False)
class Inspection(Described):
    """The output of `onetrunk data SOURCE`.

    Attributes:
        splits: Split -> readable images.
        how: How the splits were made.
        sizes: "height" and "width" -> minimum, median, maximum; [] if no image is readable.
        trained_at: Height and width.
        unreadable: File -> reason.
        suspicious: Reason -> files.
        exact: Pairs of files with the same content in two splits.
        near: Pairs of files with nearly the same picture in two splits.
        conflicts: Pairs of files with the same content and different labels.
        refused: The error that training would raise for this source; "" for none.
        cache: The folder of the decoded images, its bytes, and whether it contains pixels.
    """

    source: str
    splits: dict[str, int]
    how: str
    tasks: list[Labels]
    sizes: dict[str, list[int]]
    trained_at: list[int]
    mean: list[float]
    std: list[float]
    unreadable: dict[str, str]
    suspicious: dict[str, list[str]]
    exact: list[list[str]]
    near: list[list[str]]
    conflicts: list[list[str]]
    warnings: list[str]
    refused: str
    cache: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> Summary:
        """Return the splits, the sizes, and the number of images of each finding."""
        images = plural(sum(self.splits.values()), "image")
        suspicious = {file for files in self.suspicious.values() for file in files}
        counts = {
            "unreadable": len(self.unreadable),
            "suspicious": len(suspicious),
            "exact duplicates across splits": len(self.exact),
            "near duplicates across splits": len(self.near),
            "same image, different labels": len(self.conflicts),
        }
        found = ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count)
        source = self.source if len(self.source) <= LONGEST else f"{self.source[:LONGEST]}…"
        sides = [f"{side} {v[0]} to {v[-1]}" for side, v in self.sizes.items() if v]
        facts = [
            ("source", source),
            ("splits", ", ".join(f"{split} {count:,}" for split, count in self.splits.items())),
            *([("images", f"{', '.join(sides)} pixels")] if sides else []),
            ("trained at", f"{'×'.join(map(str, self.trained_at))} pixels"),
            ("found", found or "nothing suspicious"),
            *([("warning", warning) for warning in self.warnings]),
            *([("training refuses", self.refused)] if self.refused else []),
        ]
        tasks = [(t.task, t.kind, str(len(t.classes) or "")) for t in self.tasks]
        columns = ("task", "kind", "classes")
        return Summary(f"Inspection({images}, {found or 'no findings'})", facts, columns, tasks)

    def to_json(self) -> dict[str, Any]:
        """Return a plain document."""
        return asdict(self)


def inspect(domain: Domain) -> Inspection:
    """Inspect all images of a domain."""
    if not isinstance(domain, Domain):
        raise not_a_domain(domain)
    index, decoded = domain.index, domain.decoded
    records = decoded.records
    good = (records["status"] == GOOD) & (index.split != LEFT_OUT)
    refusals = []
    for check in (domain.check_classes, domain.check):
        try:
            check()
        except BadInput as error:
            refusals.append(error)
    refused = str(BadInput.several(refusals).without_name(domain.name)) if refusals else ""
    sizes: dict[str, list[int]] = {"height": [], "width": []}
    if good.any():
        for side in sizes:
            v = records[side][good]
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
        unreadable={index.keys[row]: reason for row, reason in decoded.reasons.items()},
        suspicious={
            reason: [index.keys[i] for i in np.flatnonzero(good & (records["flags"] & bit > 0))]
            for bit, reason in SUSPICIOUS.items()
            if (good & (records["flags"] & bit > 0)).any()
        },
        exact=exact,
        near=_near(domain, good, {frozenset(pair) for pair in exact}),
        conflicts=conflicts,
        warnings=domain.warnings(),
        refused=refused,
        cache={
            "folder": str(folder),
            "bytes": bytes_in(folder),
            "pixels": decoded.frames.folder is not None,
        },
    )


def _labels(task: Task, domain: Domain, good: NDArray[np.bool_]) -> Labels:
    labels = Labels(task.name, task.kind, list(task.classes), {}, {}, {}, {}, task.unit)
    column = domain.index.labels.get(task.name)
    if column is None:  # dense targets are not counted by images
        return labels
    for split in SPLITS:
        rows = domain.index.rows(split)
        part = column[rows[good[rows]]]
        known = is_labelled(task, part)
        labels.unlabelled[split] = int((~known).sum())
        if task.kind == "regress" and known.any():
            v = part[known]
            labels.numbers[split] = [float(v.min()), float(v.mean()), float(v.max())]
        elif task.classes and known.any():
            names = dict(zip(task.classes, class_counts(task, part).tolist(), strict=True))
            labels.counts[split] = names
            labels.missing[split] = [name for name, n in names.items() if n == 0]
    return labels


def _same(domain: Domain, good: NDArray[np.bool_]) -> tuple[list[list[str]], list[list[str]]]:
    """Return pairs of files with the same content: across splits, and with different labels."""
    index = domain.index
    rows = np.flatnonzero(good)
    digest = np.ascontiguousarray(domain.decoded.records["digest"][rows])
    order = np.lexsort((rows, digest[:, 1], digest[:, 0]))
    exact: list[list[str]] = []
    conflicts: list[list[str]] = []
    labelled: dict[str, int] = {}  # by task: the last row with this content and a label
    for a, b in itertools.pairwise(order):  # neighbours in the order of their digests
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


def _near(domain: Domain, good: NDArray[np.bool_], exact: set[frozenset[str]]) -> list[list[str]]:
    """Return pairs of near duplicates across splits, without the exact ones."""
    index, records = domain.index, domain.decoded.records
    blank = records["flags"] & BLANK > 0  # all blank images are alike, and listed as suspicious
    part = [np.flatnonzero(good & ~blank & (index.split == code)) for code in range(len(SPLITS))]
    pairs: list[list[str]] = []
    for a, b in ((1, 0), (2, 0), (2, 1)):
        if len(part[a]) == 0 or len(part[b]) == 0:
            continue
        for i, j in near_pairs(records["thumb"][part[a]], records["thumb"][part[b]], limit=10_000):
            pair = [index.keys[part[a][i]], index.keys[part[b][j]]]
            if frozenset(pair) not in exact:
                pairs.append(pair)
    return pairs
