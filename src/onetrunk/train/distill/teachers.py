"""Teachers: frozen networks that look at the student's own batches.

Each has its own size and normalization and sees the very view that the student sees: normalized back to
grey levels, resized where its size is another, and normalized as it was trained. It is folded, in
evaluation mode and without gradients.
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
from onetrunk.errors import BadInput
from onetrunk.nn.feature_points import BOTTLENECK, DECODED, POOLED, Inside, at, level_of
from onetrunk.nn.universal import Universal


class Teacher(Protocol):
    """What distillation needs of one teacher of one domain."""

    name: str  # for people
    tasks: tuple[str, ...]  # of the student, that it teaches
    predictions: tuple[str, ...]  # of these, those that it predictions
    widths: Mapping[str, int]  # channels of its features, by point

    def look(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Inside:
        """What it says of images as the student sees them: answers by the student's tasks, in the
        order of the student's classes, and features at its own `points`."""
        ...

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Work there from now on."""
        ...


class Eyes:
    """From the student's normalized images to a teacher's."""

    def __init__(self, student: Pixels, teacher: Pixels) -> None:
        self.size = None if student.size == teacher.size else teacher.size
        same = (student.mean, student.std) == (teacher.mean, teacher.std)
        one, other = (
            torch.tensor([student.mean, student.std]),
            torch.tensor([teacher.mean, teacher.std]),
        )
        # t = (s·std + mean − mean')/std'
        self.scale = None if same else (one[1] / other[1]).reshape(1, 3, 1, 1)
        self.shift = ((one[0] - other[0]) / other[1]).reshape(1, 3, 1, 1)

    @property
    def changes(self) -> bool:
        """Whether the teacher's size or normalization is another."""
        return self.size is not None or self.scale is not None

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """The same views."""
        x = images_BCHW
        if self.scale is not None:
            x = torch.addcmul(self.shift.to(x), x, self.scale.to(x))
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=True)
        return x

    def to(self, device: torch.device) -> None:
        """Constants where the images are."""
        self.shift = self.shift.to(device)
        self.scale = None if self.scale is None else self.scale.to(device)


class Specialist:
    """A domain of a network of onetrunk's, folded to a plain one."""

    def __init__(
        self,
        model: Universal,
        known_as: str,
        domain: Domain,
        tasks: Sequence[str],
        name: str,
        logits: bool = True,
    ) -> None:
        """`known_as`: the domain's name in the teacher; `logits`: whether its answers are asked."""
        card = model.domains[known_as]
        self.name = name
        self.tasks = tuple(tasks)
        self.predictions = self.tasks if logits else ()
        self.order: dict[str, Tensor | None] = {}
        for task in domain.tasks:
            if task.name in self.predictions:
                theirs = card.task(task.name)
                self.order[task.name] = order_of(task, theirs, f"{name}: {domain.name}")
        self.net = model.for_domain(known_as).eval().requires_grad_(False)
        self.dtype = next(self.net.parameters()).dtype  # it works as it was trained
        self.eyes = Eyes(domain.pixels, card.pixels)
        self.widths: Mapping[str, int] = widths(model, known_as)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Work there from now on."""
        self.net.to(device)
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.eyes.to(device)
        self.order = {t: None if o is None else o.to(device) for t, o in self.order.items()}

    @torch.no_grad()
    def look(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Inside:
        """Its answers and its features at these points."""
        x = self.eyes(images).to(self.dtype)
        trunk, heads = self.net.trunk, self.net.heads
        levels = {level for point in points for level in level_of(trunk, point)}
        decodes = heads.decoder is not None and (bool(self.predictions) or DECODED in points)
        if decodes and heads.decoder is not None:
            levels.update(heads.decoder.levels)
        wanted = sorted(levels)
        whole = POOLED in points or (heads.needs_pooled and bool(self.predictions))
        pooled, pyramid = trunk(x, whole, wanted)
        maps = dict(zip(wanted, pyramid, strict=True))
        decoded = heads.decoded(maps) if decodes else None
        size = (images.shape[-2], images.shape[-1])  # maps at the student's size
        said = heads.prediction(pooled, decoded, size) if self.predictions else {}
        predictions = {}
        for task, order in self.order.items():
            predictions[task] = said[task] if order is None else said[task].index_select(1, order)
        return Inside(predictions, at(trunk, points, pooled, maps, decoded))


def widths(model: Universal, name: str) -> dict[str, int]:
    """Channels at every point of this domain's network."""
    trunk, heads = model.trunk, model.heads_of(name)
    shape = trunk.measure(name, model.domains[name].pixels.size)
    (coarsest,) = level_of(trunk, BOTTLENECK)
    found = {POOLED: shape.features, BOTTLENECK: shape.pyramid[coarsest][0]}
    if heads.decoder is not None:
        found[DECODED] = heads.decoder.width
    if len(trunk.stages) == len(trunk.reductions):
        for stage, (channels, _) in zip(trunk.stages, shape.pyramid, strict=True):
            found[stage] = channels
    return found


def order_of(mine: Task, theirs: Task, who: str) -> Tensor | None:
    """Where the student's classes stand among the teacher's; None where the order is the same."""
    if mine.kind != theirs.kind:
        raise BadInput(
            f"teacher {who}/{mine.name} is a {mine.kind} task for the student",
            got=f"a teacher's {theirs.kind} task {theirs.name}",
        )
    if mine.kind == "regress" and mine.outputs != theirs.outputs:
        raise BadInput(
            f"teacher {who}/{mine.name}: the student predicts {mine.outputs} numbers",
            got=theirs.outputs,
        )
    if mine.kind not in ("classify", "multilabel", "segment") or mine.classes == theirs.classes:
        return None
    lacking = [c for c in mine.classes if c not in theirs.classes]
    strange = [c for c in theirs.classes if c not in mine.classes]
    if lacking or strange:
        faults = [
            f"{what} {', '.join(names[:5])}" + (f", … ({len(names)})" if len(names) > 5 else "")
            for what, names in (("it lacks", lacking), ("the domain has no", strange))
            if names
        ]
        raise BadInput(
            f"teacher {who}/{mine.name}: its classes are not those of the domain",
            got="; ".join(faults),
            try_="a teacher of these classes, or logits = false to take its features alone",
        )
    return torch.tensor([theirs.classes.index(c) for c in mine.classes])
