"""Stored teachers: a file of a teacher's outputs for a few views of each training image.

The header of the file describes everything that its views depend on: the images (a digest of their
content and order), the size and normalization, the augmentation with its seed, and the number of
views. The student's loader draws the same views again. A file that was made from anything else is
refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.sampling import Fixed
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.feature_points import Outputs
from onetrunk.store.tensors import read_rows
from onetrunk.train.distill.teachers import Teacher, class_order

PREFIX = "features:"
FEATURES, PREDICTIONS = "features/", "predictions/"  # followed by a point, or by a task


class Header(BaseModel, frozen=True, strict=True, extra="forbid"):
    """The header of a file; row v·n + i belongs to view v of the image at place i of n."""

    format: Literal[1] = 1
    teacher: str
    domain: str
    images: PositiveInt
    digest: str  # of the training images
    views: PositiveInt
    seed: NonNegativeInt  # of their augmentation
    pixels: dict[str, Any]
    augment: dict[str, Any]
    predictions: dict[str, dict[str, Any]]  # by task: kind, classes and number of outputs

    @classmethod
    def of(cls, domain: Domain, teacher: str, predictions: Sequence[str], fixed: Fixed) -> Header:
        """Return the header for a teacher's outputs on views of this domain."""
        return cls(
            teacher=teacher,
            domain=domain.name,
            images=len(domain.train),
            digest=digest_of(domain),
            views=fixed.views,
            seed=fixed.seed,
            pixels=domain.pixels.to_json(),
            augment=json.loads(json.dumps(asdict(domain.augmentation))),  # as `read` returns it
            predictions={
                task.name: {
                    "kind": task.kind,
                    "classes": list(task.classes),
                    "outputs": task.outputs,
                }
                for task in domain.tasks
                if task.name in predictions
            },
        )

    def text(self) -> str:
        """Return the header as JSON."""
        return json.dumps(self.model_dump(), sort_keys=True)

    @classmethod
    def read(cls, text: str, name: str) -> Header:
        """Parse and check a header; `name` is the file's, for messages."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            (first, *_) = error.errors()
            field = ".".join(map(str, first["loc"]))
            raise BadInput(
                f"{name}: expected a file of precomputed features", got=f"{field}: {first['msg']}"
            ) from None


class StoredTeacher:
    """A file of precomputed outputs, used as a teacher."""

    converter = None  # the file holds outputs for the student's own views

    def __init__(
        self, path: Path, domain: Domain, tasks: Sequence[str], logits: bool = True
    ) -> None:
        text, self.arrays = read_rows(path)
        with path.open("rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        header = self.header = Header.read(text, path.name)
        self.name, self.tasks = header.teacher, tuple(tasks)
        check_header(path.name, header, domain)
        rows = header.views * header.images
        for name, array in self.arrays.items():
            if len(array) != rows or array.ndim not in (2, 4):
                raise BadInput(f"{path.name}: {name}: expected {rows} rows", got=array.shape)
        by_name = {task.name: task for task in domain.tasks if task.name in tasks}
        self.predictions = tuple(t for t in by_name if t in header.predictions and logits)
        self.order = {t: self._order(path.name, domain, by_name[t]) for t in self.predictions}
        self.widths: Mapping[str, int] = {
            name.removeprefix(FEATURES): int(array.shape[1])
            for name, array in self.arrays.items()
            if name.startswith(FEATURES)
        }
        self.fixed = Fixed(header.views, header.seed)

    def _order(self, file: str, domain: Domain, task: Task) -> Tensor | None:
        """Return the index of each of the domain's classes among the file's."""
        try:
            stored = replace(task, **self.header.predictions[task.name])
        except TypeError as error:
            raise BadInput(f"{file}: predictions of {task.name}", got=str(error)[:100]) from None
        order = class_order(task, stored, f"{file}: {domain.name}")
        array = self.arrays.get(PREDICTIONS + task.name)
        if array is None or array.shape[1] != stored.width:
            raise BadInput(
                f"{file}: predictions of {task.name}: expected {stored.width} outputs",
                got="none" if array is None else array.shape[1],
            )
        return order

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the class orders to a device; the arrays stay in the file."""
        self.order = {t: None if o is None else o.to(device) for t, o in self.order.items()}

    def forward(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Outputs:
        """Return the stored outputs for the views of a batch."""
        rows = batch.views * self.header.images + batch.places

        def read(name: str) -> Tensor:
            tensor = torch.from_numpy(np.asarray(self.arrays[name][rows]))
            return tensor.to(images.device, non_blocking=True).float()

        predictions = {}
        for task, order in self.order.items():
            outputs = read(PREDICTIONS + task)
            predictions[task] = outputs if order is None else outputs.index_select(1, order)
        return Outputs(predictions, {point: read(FEATURES + point) for point in points})


def fixed_of(teachers: Sequence[Teacher]) -> Fixed | None:
    """Return the views of the stored teachers of one domain, which must all be the same."""
    stored = [teacher for teacher in teachers if isinstance(teacher, StoredTeacher)]
    if len({teacher.fixed for teacher in stored}) > 1:
        raise BadInput(
            f"{stored[0].header.domain}: expected precomputed features of the same views",
            got=" and ".join(f"{t.fixed.views} of seed {t.fixed.seed}" for t in stored),
            try_="precompute all of them with one seed and one number of views",
        )
    return stored[0].fixed if stored else None


def check_header(file: str, header: Header, domain: Domain) -> None:
    """Check that a file was made from this domain's images, pixels and augmentation."""
    if domain.sample is not None:  # a dry run knows neither the digests nor the statistics
        return
    expected = Header.of(domain, header.teacher, (), Fixed(header.views, header.seed))
    if header.digest != expected.digest:
        raise BadInput(
            f"{file}: expected features of the training images of {domain.name}",
            got=f"{header.images:,} images of {header.domain}, {expected.images:,} here",
            try_="precompute the features from these images",
        )
    for name, stored, current in (
        ("pixels", header.pixels, expected.pixels),
        ("augment", header.augment, expected.augment),
    ):
        if stored != current:
            keys = [key for key in current if stored.get(key) != current[key]]
            raise BadInput(
                f"{file}: it was made with other {name} settings than those of {domain.name}",
                got="; ".join(f"{key} {stored.get(key)}, here {current[key]}" for key in keys),
                try_="use the same settings, or precompute the features with these",
            )


def digest_of(domain: Domain) -> str:
    """Return a digest of the training images: their contents and rows, which decide their views."""
    rows = domain.train.rows
    digest = hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes())
    digest.update(np.ascontiguousarray(domain.decoded.records["digest"][rows]).tobytes())
    return digest.hexdigest()
