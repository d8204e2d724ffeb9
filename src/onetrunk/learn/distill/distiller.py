"""Distillation beside the labels: what the frozen teachers of a domain add to its loss.

For a domain with tasks t, each with its teachers k (Li, Liu & Bilen 2022):

    L = mean over t [ w·ℓ_t + a·mean over k ( λ·Σ_p ℓ_feature(A_kp(f_p), g_kp) + μ·ℓ_logits ) ],

f_p the student's features at the point p, A_kp an aligner of the domain, g_kp the teacher's
features, a the annealing. A teacher of several tasks says its features once, and they count as
often as it has tasks. Every batch meets the teachers of its own domain alone, on the same view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.errors import wrong
from onetrunk.learn.device import Precision
from onetrunk.learn.distill.aligner import Aligner
from onetrunk.learn.distill.cka import FEWEST, cka
from onetrunk.learn.distill.cosine import cosine
from onetrunk.learn.distill.l2 import l2
from onetrunk.learn.distill.logits import Answers, make_answers
from onetrunk.learn.distill.rows import meet
from onetrunk.learn.distill.standard import Standard, standard
from onetrunk.learn.distill.teachers import Teacher, widths
from onetrunk.learn.optim import kept, remember
from onetrunk.model.points import BOTTLENECK, DECODED, POOLED, Inside
from onetrunk.model.universal import Universal
from onetrunk.recipe.distill import Distill

FeatureLoss = Callable[[Tensor, Tensor], Tensor]  # (aligned student's, teacher's) to a scalar
LOSSES: Mapping[str, FeatureLoss] = {"l2": l2, "cka": cka, "cosine": cosine}


@dataclass
class Lesson:
    """What one teacher teaches of one domain."""

    teacher: Teacher
    pairs: tuple[tuple[str, str], ...]  # (student's point, teacher's point)
    aligners: nn.ModuleList  # one for each pair
    answers: Mapping[str, Answers]  # by task
    features: Mapping[str, float]  # weight of its features, by task
    logits: Mapping[str, float]  # weight of its answers, by task
    standard: Mapping[str, Standard]  # of its features by point, where the loss asks for it


class Distiller:
    """All teachers of one model, with their aligners and what moves these."""

    def __init__(
        self,
        model: Universal,
        domains: Sequence[Domain],
        teachers: Mapping[str, Sequence[Teacher]],
        distill: Distill,
        precision: Precision,
        channels_last: bool = True,
    ) -> None:
        self.distill, self.precision = distill, precision
        device = precision.device
        self.loss = LOSSES.get(distill.features)
        self.standard = self.loss is cosine
        self.tasks = {domain.name: [t.name for t in domain.tasks] for domain in domains}
        self.lessons: dict[str, list[Lesson]] = {}
        for domain in domains:
            for teacher in teachers.get(domain.name, ()):
                teacher.to(device, channels_last)
                lesson = self._lesson(model, domain, teacher, device)
                lesson.aligners.to(device)
                self.lessons.setdefault(domain.name, []).append(lesson)
        self.points = {
            name: tuple(dict.fromkeys(mine for lesson in lessons for mine, _ in lesson.pairs))
            for name, lessons in self.lessons.items()
        }
        self.parameters = {
            name: {
                f"{i}/{key}": parameter
                for i, lesson in enumerate(lessons)
                for key, parameter in lesson.aligners.named_parameters()
            }
            for name, lessons in self.lessons.items()
        }
        self.optimizers = {
            name: torch.optim.Adam(
                named.values(), distill.aligner_lr, weight_decay=distill.aligner_decay, fused=True
            )
            for name, named in self.parameters.items()
            if named
        }

    def losses(
        self, batch: Batch, images: Tensor, inside: Inside, progress: float
    ) -> dict[str, Tensor]:
        """Of one batch, weighted and annealed: what its teachers add, by "feature" and "logits".

        `images`: as the student saw them; `progress`: the part of the training that is over.
        """
        found: dict[str, list[Tensor]] = {}
        tasks = self.tasks[batch.domain]
        lessons = self.lessons.get(batch.domain, ())
        fade = faded(progress, self.distill.annealing)
        of = {task: sum(task in lesson.teacher.tasks for lesson in lessons) for task in tasks}
        for lesson in lessons:
            asked = tuple(dict.fromkeys(theirs for _, theirs in lesson.pairs))
            with self.precision.autocast():
                seen = lesson.teacher.look(images, batch, asked)
            weight = sum(lesson.features[task] / of[task] for task in lesson.teacher.tasks)
            for (mine, theirs), aligner in zip(lesson.pairs, lesson.aligners, strict=True):
                t = _full(seen.features[theirs])
                if theirs in lesson.standard:
                    t = lesson.standard[theirs](t)
                a, t = meet(aligner(_full(inside.features[mine])), t)
                found.setdefault("features", []).append(weight * self._compared(a, t))
            for task, answers in lesson.answers.items():
                loss = answers(_full(inside.answers[task]), _full(seen.answers[task]))
                found.setdefault("logits", []).append(lesson.logits[task] / of[task] * loss)
        return {
            what: fade * torch.stack(values).sum() / len(tasks) for what, values in found.items()
        }

    def gradients(self, domains: Iterable[str]) -> list[Tensor]:
        """The gradients of these domains' aligners."""
        every = (p.grad for name in domains for p in self.parameters.get(name, {}).values())
        return [grad for grad in every if grad is not None]

    def step(
        self, domains: Iterable[str], progress: float, scaler: torch.amp.GradScaler | None = None
    ) -> None:
        """Move these domains' aligners, forget their gradients."""
        rate = self.distill.aligner_lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        for name in domains:
            if (optimizer := self.optimizers.get(name)) is None:
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
            optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The aligners and what their optimizers remember; nothing of a teacher."""
        weights = {
            f"weights/{name}/{key}": parameter.detach()
            for name, named in self.parameters.items()
            for key, parameter in named.items()
        }
        optim = kept(self.optimizers, self.parameters)
        return weights | {f"optim/{place}": tensor for place, tensor in optim.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, named in self.parameters.items():
            for key, parameter in named.items():
                parameter.copy_(tensors[f"weights/{name}/{key}"])
        optim = {
            place.removeprefix("optim/"): tensor
            for place, tensor in tensors.items()
            if place.startswith("optim/")
        }
        remember(self.optimizers, self.parameters, optim)

    def _compared(self, aligned: Tensor, theirs: Tensor) -> Tensor:
        assert self.loss is not None
        small = len(aligned) < FEWEST and self.loss is cka
        return (cosine if small else self.loss)(aligned, theirs)

    def _lesson(
        self, model: Universal, domain: Domain, teacher: Teacher, device: torch.device
    ) -> Lesson:
        distill = self.distill
        kinds = {task.name: task for task in domain.tasks}
        taught = [kinds[name] for name in teacher.tasks]
        pairs: list[tuple[str, str]] = []
        if self.loss is not None:
            usual = ([POOLED] if any(not t.dense for t in taught) else []) + (
                [BOTTLENECK, DECODED] if any(t.dense for t in taught) else []
            )
            for point in distill.at or usual:
                if theirs := aim(point, teacher.widths):
                    pairs.append((point, theirs))
        inside = widths(model, domain.name)
        for point, _ in pairs:
            if point not in inside:
                raise wrong(
                    f"distill.at: {domain.name} has no features at this point",
                    came=point,
                    exists=inside,
                )
        return Lesson(
            teacher,
            tuple(pairs),
            nn.ModuleList(
                Aligner(inside[mine], teacher.widths[theirs], distill.aligner)
                for mine, theirs in pairs
            ),
            {
                task.name: loss
                for task in taught
                if distill.logits
                and (loss := make_answers(task, domain, distill.temperature)) is not None
            },
            {t: weight_of(distill.feature_weight, domain.name, t) for t in teacher.tasks},
            {t: weight_of(distill.logit_weight, domain.name, t) for t in teacher.tasks},
            standard(teacher, domain, [t for _, t in pairs], device) if self.standard else {},
        )


def aim(point: str, theirs: Mapping[str, int]) -> str | None:
    """The teacher's point that the student's is held against: dense ones against its decoded map
    (Li et al.: both of them), any other against the same; None where the teacher has none."""
    wanted = (DECODED, BOTTLENECK, POOLED) if point in (BOTTLENECK, DECODED) else (point,)
    return next((name for name in wanted if name in theirs), None)


def weight_of(given: float | Mapping[str, float], domain: str, task: str) -> float:
    """A weight of the settings: one for all, or by "domain/task", by domain, else 1."""
    if isinstance(given, float):
        return given
    return given.get(f"{domain}/{task}", given.get(domain, 1.0))


def faded(progress: float, annealing: str) -> float:
    """What is left of the teachers' weight when this part of the training is over."""
    if annealing == "linear":
        return max(0.0, 1 - progress)
    if annealing == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return 1.0


def _full(tensor: Tensor) -> Tensor:
    """Never in half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
