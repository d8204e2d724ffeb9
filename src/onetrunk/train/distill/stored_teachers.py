"""Stored teachers: what a teacher said of a few views of each training image, in a file.

The file names everything that its views depend on: the images (a digest of their content and
order), the pixels' contract, the augmentation with its seed and how many views. The student's
loader draws these very views again; a file of anything else is refused, in one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.sampling import Fixed
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.feature_points import Inside
from onetrunk.store.tensors import read_rows
from onetrunk.train.distill.teachers import Teacher, order_of

PREFIX = "features:"
FORMAT = 1
FEATURES, PREDICTIONS = "features/", "predictions/"  # before a point, before a task


@dataclass(frozen=True)
class About:
    """What a file says of itself; row v·n + i is of view v of the image at place i of n."""

    teacher: str
    domain: str
    images: int
    digest: str  # of the training images
    views: int
    seed: int  # of their augmentation
    pixels: dict[str, Any]
    augment: dict[str, Any]
    predictions: dict[str, dict[str, Any]]  # by task its kind, classes and number of outputs

    @classmethod
    def of(cls, domain: Domain, teacher: str, predictions: Sequence[str], fixed: Fixed) -> About:
        """Of a teacher's views of this domain."""
        known = {task.name: task for task in domain.tasks}
        return cls(
            teacher,
            domain.name,
            len(domain.train),
            digest_of(domain),
            fixed.views,
            fixed.seed,
            domain.pixels.to_json(),
            _plain(asdict(domain.augmentation)),
            {
                name: {
                    "kind": known[name].kind,
                    "classes": list(known[name].classes),
                    "outputs": known[name].outputs,
                }
                for name in predictions
            },
        )

    def text(self) -> str:
        """As the file's header holds it."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def read(cls, text: str, name: str) -> About:
        """What `text` wrote; whatever else stands there is a BadInput."""
        try:
            found = json.loads(text)
            if found.pop("format") != FORMAT:
                raise ValueError("of another format")
            made = cls(**found)
            numbers = (made.images, made.views, made.seed)
            if not all(type(n) is int for n in numbers) or min(numbers[:2]) < 1 or made.seed < 0:
                raise ValueError("images, views and seed are whole numbers")
            if not isinstance(made.teacher, str) or not isinstance(made.predictions, dict):
                raise TypeError("no teacher, or no predictions")
            return made
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(f"{name} holds no features of a teacher", got=str(error)[:100]) from None


class Stored:
    """A teacher that has looked already."""

    eyes = None  # it sees what the student sees

    def __init__(
        self, path: Path, domain: Domain, tasks: Sequence[str], logits: bool = True
    ) -> None:
        text, self.arrays = read_rows(path)
        about = self.about = About.read(text, path.name)
        self.name, self.tasks = about.teacher, tuple(tasks)
        check(path.name, about, domain)
        rows = about.views * about.images
        for name, array in self.arrays.items():
            if len(array) != rows or array.ndim not in (2, 4):
                raise BadInput(f"{path.name}: {name}: expected {rows} rows", got=array.shape)
        known = {task.name: task for task in domain.tasks if task.name in tasks}
        mine = [name for name in known if name in about.predictions and logits]
        self.predictions = tuple(mine)
        self.order = {name: self._order(path.name, domain, known[name]) for name in mine}
        self.widths: Mapping[str, int] = {
            name.removeprefix(FEATURES): int(array.shape[1])
            for name, array in self.arrays.items()
            if name.startswith(FEATURES)
        }
        self.fixed = Fixed(about.views, about.seed)

    def _order(self, file: str, domain: Domain, task: Task) -> Tensor | None:
        """Where the domain's classes stand among the file's."""
        said = self.about.predictions[task.name]
        try:
            theirs = replace(task, **said)
        except TypeError as error:
            raise BadInput(f"{file}: answers to {task.name}", got=str(error)[:100]) from None
        order = order_of(task, theirs, f"{file}: {domain.name}")
        array = self.arrays.get(PREDICTIONS + task.name)
        if array is None or array.shape[1] != theirs.width:
            raise BadInput(
                f"{file}: answers to {task.name}: expected {theirs.width} outputs",
                got="none" if array is None else array.shape[1],
            )
        return order

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Work there from now on."""
        self.order = {t: None if o is None else o.to(device) for t, o in self.order.items()}

    def look(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Inside:
        """What it said of these views of these images."""
        rows = batch.views * self.about.images + batch.places

        def take(name: str) -> Tensor:
            found = torch.from_numpy(np.asarray(self.arrays[name][rows]))
            return found.to(images.device, non_blocking=True).float()

        predictions = {}
        for task, order in self.order.items():
            said = take(PREDICTIONS + task)
            predictions[task] = said if order is None else said.index_select(1, order)
        return Inside(predictions, {point: take(FEATURES + point) for point in points})


def fixed_of(teachers: Sequence[Teacher]) -> Fixed | None:
    """The views that stored teachers of one domain have seen; all of them the same."""
    several = [teacher for teacher in teachers if isinstance(teacher, Stored)]
    for other in several[1:]:
        if other.fixed != several[0].fixed:
            raise BadInput(
                f"{several[0].about.domain}: its files of features are of other views",
                got=" and ".join(f"{t.fixed.views} of seed {t.fixed.seed}" for t in several),
                try_="make them again with one seed and as many views",
            )
    return several[0].fixed if several else None


def check(file: str, about: About, domain: Domain) -> None:
    """The very images, pixels and augmentation of this domain, or one line that says what not."""
    expected = About.of(domain, about.teacher, (), Fixed(about.views, about.seed))
    if about.digest != expected.digest:
        raise BadInput(
            f"{file}: its views are of other images than {domain.name}'s training split",
            got=f"{about.images:,} images of {about.domain}, {expected.images:,} here",
            try_="make it again from these images",
        )
    for what in ("pixels", "augment"):
        theirs, mine = getattr(about, what), getattr(expected, what)
        if theirs != mine:
            keys = [key for key in mine if theirs.get(key) != mine[key]]
            raise BadInput(
                f"{file}: {domain.name}'s {what} are others than its views were made with",
                got="; ".join(f"{key} {theirs.get(key)}, here {mine[key]}" for key in keys),
                try_="the same settings, or make it again with these",
            )


def digest_of(domain: Domain) -> str:
    """Of the training images: their content, and their numbers, which decide their views."""
    rows = domain.train.rows
    digest = hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes())
    digest.update(np.ascontiguousarray(domain.decoded.scan["digest"][rows]).tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    found: Any = json.loads(json.dumps(value))
    return found
