"""Frozen teacher networks, which run on the student's batches.

A teacher has its own image size and normalization. It receives the same augmented views as the
student, converted to its normalization and resized if the sizes differ. Teachers are folded, in
evaluation mode, and run without gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, shorten
from onetrunk.nn.feature_points import BOTTLENECK, DECODED, POOLED, Outputs, features_at, level_of
from onetrunk.nn.universal import Universal
from onetrunk.store.tensors import fingerprint_of


class Teacher(Protocol):
    """What distillation needs from one teacher of one domain."""

    name: str  # shown in messages and records
    tasks: tuple[str, ...]  # the student's tasks that it teaches
    predictions: tuple[str, ...]  # those of `tasks` that it has predictions for
    widths: Mapping[str, int]  # number of channels of its features, by point
    fingerprint: str  # a digest of everything that its outputs depend on

    def forward(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Outputs:
        """Return the predictions of all its tasks and the features at `points`.

        Predictions have the student's task names and order of classes.

        Args:
            images: The images of `batch` as the student receives them.
            points: The teacher's own feature points.
        """
        ...

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the network to a device."""
        ...


class ImageConverter:
    """Converts the student's normalized images to a teacher's size and normalization."""

    def __init__(self, student: Pixels, teacher: Pixels) -> None:
        self.size = None if student.size == teacher.size else teacher.size
        equal = (student.mean, student.std) == (teacher.mean, teacher.std)
        source = torch.tensor([student.mean, student.std])
        target = torch.tensor([teacher.mean, teacher.std])
        # t = (s·std + mean − mean')/std'
        self.scale = None if equal else (source[1] / target[1]).reshape(1, 3, 1, 1)
        self.shift = ((source[0] - target[0]) / target[1]).reshape(1, 3, 1, 1)

    @property
    def changes_images(self) -> bool:
        """Whether the teacher's size or normalization differs from the student's."""
        return self.size is not None or self.scale is not None

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return the images at the teacher's size and normalization."""
        x = images_BCHW
        if self.scale is not None:
            x = torch.addcmul(self.shift.to(x), x, self.scale.to(x))
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=True)
        return x

    def to(self, device: torch.device) -> None:
        """Move the constants to a device."""
        self.shift = self.shift.to(device)
        self.scale = None if self.scale is None else self.scale.to(device)


class Specialist:
    """One domain of a onetrunk network as a teacher, folded to a plain network.

    Args:
        teacher_domain: The domain's name in the teacher.
        domain: The student's domain.
        tasks: The student's tasks that it teaches.
        name: Shown in messages and records.
        logits: Whether its predictions are used as well as its features.
    """

    def __init__(
        self,
        model: Universal,
        teacher_domain: str,
        domain: Domain,
        tasks: Sequence[str],
        name: str,
        logits: bool = True,
    ) -> None:
        card = model.domains[teacher_domain]
        self.name = name
        self.tasks = tuple(tasks)
        self.predictions = self.tasks if logits else ()
        self.order: dict[str, Tensor | None] = {
            task.name: class_order(task, card.task(task.name), f"{name}: {domain.name}")
            for task in domain.tasks
            if task.name in self.predictions
        }
        tensors = {**model.trunk.shared(), **model.own(teacher_domain)}
        self.fingerprint = fingerprint_of(tensors, card.pixels.to_json())
        self.net = model.for_domain(teacher_domain).eval().requires_grad_(False)
        self.dtype = next(self.net.parameters()).dtype
        self.converter = ImageConverter(domain.pixels, card.pixels)
        self.widths: Mapping[str, int] = feature_widths(model, teacher_domain)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the network to a device."""
        self.net.to(device)
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.converter.to(device)
        self.order = {t: None if o is None else o.to(device) for t, o in self.order.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Outputs:
        """Return predictions, and features at `points`."""
        x = self.converter(images).to(self.dtype)
        trunk, heads = self.net.trunk, self.net.heads
        levels = {level for point in points for level in level_of(trunk, point)}
        decodes = heads.decoder is not None and (bool(self.predictions) or DECODED in points)
        if decodes and heads.decoder is not None:
            levels.update(heads.decoder.levels)
        wanted = sorted(levels)
        pools = POOLED in points or (heads.needs_pooled and bool(self.predictions))
        pooled, pyramid = trunk(x, pools, wanted)
        maps = dict(zip(wanted, pyramid, strict=True))
        decoded = heads.decoded(maps) if decodes else None
        size = (images.shape[-2], images.shape[-1])  # predicted maps have the student's size
        outputs = heads.prediction(pooled, decoded, size) if self.predictions else {}
        predictions = {
            task: outputs[task] if order is None else outputs[task].index_select(1, order)
            for task, order in self.order.items()
        }
        return Outputs(predictions, features_at(trunk, points, pooled, maps, decoded))


def feature_widths(model: Universal, name: str) -> dict[str, int]:
    """Return the number of channels at every feature point of a domain's network."""
    trunk, heads = model.trunk, model.heads_of(name)
    shape = trunk.measure(name, model.domains[name].pixels.size)
    (coarsest,) = level_of(trunk, BOTTLENECK)
    widths = {POOLED: shape.features, BOTTLENECK: shape.pyramid[coarsest][0]}
    if heads.decoder is not None:
        widths[DECODED] = heads.decoder.width
    if len(trunk.stages) == len(trunk.reductions):
        for stage, (channels, _) in zip(trunk.stages, shape.pyramid, strict=True):
            widths[stage] = channels
    return widths


def class_order(student: Task, teacher: Task, who: str) -> Tensor | None:
    """Return the index of each of the student's classes among the teacher's.

    The result is None if the order is the same, and for tasks without classes.

    Args:
        who: The teacher and the domain, for messages.
    """
    if student.kind != teacher.kind:
        raise BadInput(
            f"teacher {who}/{student.name}: expected a {student.kind} task",
            got=f"{teacher.kind} task {teacher.name}",
        )
    if student.kind == "regress" and student.outputs != teacher.outputs:
        raise BadInput(
            f"teacher {who}/{student.name}: expected {student.outputs} predicted numbers",
            got=teacher.outputs,
        )
    if (
        student.kind not in ("classify", "multilabel", "segment")
        or student.classes == teacher.classes
    ):
        return None
    missing = [c for c in student.classes if c not in teacher.classes]
    unknown = [c for c in teacher.classes if c not in student.classes]
    if missing or unknown:
        faults = (("missing", missing), ("unknown", unknown))
        raise BadInput(
            f"teacher {who}/{student.name}: its classes differ from those of the domain",
            got="; ".join(f"{fault} {shorten(names, 5)}" for fault, names in faults if names),
            try_="a teacher of these classes, or logits = false to use its features alone",
        )
    return torch.tensor([teacher.classes.index(c) for c in student.classes])
