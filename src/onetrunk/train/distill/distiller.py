"""Distillation beside the labels: what the frozen teachers of a domain add to its loss.

For a domain with tasks t, each with its teachers k (Li, Liu & Bilen 2022):

    L = mean over t [ w·ℓ_t + a·mean over k ( λ·Σ_p ℓ_feature(A_kp(f_p), g_kp) + μ·ℓ_logits ) ],

f_p the student's features at the point p, A_kp an aligner of the domain, g_kp the teacher's
features, a the annealing; μ is missing where a teacher does not answer, and the means are over
those that do. A teacher of several tasks says its features once, and they count as often as it has
tasks. Every batch meets the teachers of its own domain alone, on the same view.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.seeded import Chance, seed_of
from onetrunk.nn.feature_points import Inside
from onetrunk.nn.universal import Universal
from onetrunk.train.device import Precision
from onetrunk.train.distill.feature_rows import meet
from onetrunk.train.distill.targets import Lesson, make_lessons
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.optimizer import load_optimizer_state, optimizer_state


class Distiller:
    """All teachers of one model, with their aligners and what moves these."""

    def __init__(
        self,
        model: Universal,
        domains: Sequence[Domain],
        teachers: Mapping[str, Sequence[Teacher]],
        distill: Distill,
        train: Train,
        precision: Precision,
        seed: int,
    ) -> None:
        self.distill, self.precision, self.seed = distill, precision, seed
        self.tasks = {domain.name: [t.name for t in domain.tasks] for domain in domains}
        self.lessons: dict[str, list[Lesson]] = {}
        for domain in domains:
            if mine := teachers.get(domain.name, ()):
                for teacher in mine:
                    teacher.to(precision.device, train.channels_last)
                self.lessons[domain.name] = make_lessons(
                    model, domain, mine, distill, domain.batch or train.batch, precision.device
                )
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
                named.values(),
                distill.aligner_lr,
                weight_decay=distill.aligner_weight_decay,
                fused=True,
            )
            for name, named in self.parameters.items()
            if named
        }

    def present(self, domain: str, step: int) -> list[Lesson]:
        """Of several teachers those that are not left out of this step; one at least."""
        lessons = self.lessons.get(domain, [])
        count, drop = len(lessons), self.distill.teacher_dropout
        if count < 2 or not drop:
            return lessons
        seed = seed_of(self.seed, domain, "teachers")
        draws = Chance(seed, np.full(count, step), np.arange(count))(0)
        stay = [lesson for lesson, draw in zip(lessons, draws, strict=True) if draw >= drop]
        return stay or [lessons[int(draws.argmax())]]

    def losses(
        self, batch: Batch, images: Tensor, inside: Inside, progress: float, step: int
    ) -> dict[str, Tensor]:
        """Of one batch, weighted and annealed: what its teachers add, by "features" and "logits".

        `images`: as the student saw them; `progress`: the part of the training that is over.
        """
        found: dict[str, list[Tensor]] = {}
        lessons = self.present(batch.domain, step)
        fade = faded(progress, self.distill.annealing)
        alike = Counter(task for lesson in lessons if lesson.pairs for task in lesson.features)
        asked = Counter(task for lesson in lessons for task in lesson.predictions)
        for lesson in lessons:
            points = tuple(dict.fromkeys(theirs for _, theirs in lesson.pairs))
            with self.precision.autocast():
                seen = lesson.teacher.look(images, batch, points)
            weight = sum(w / max(alike[task], 1) for task, w in lesson.features.items())
            for (mine, theirs), aligner in zip(lesson.pairs, lesson.aligners, strict=True):
                t = full(seen.features[theirs])
                if theirs in lesson.standard:
                    t = lesson.standard[theirs](t)
                a, t = meet(aligner(full(inside.features[mine])), t)
                if lesson.loss is not None:
                    loss = lesson.loss(a, t.to(a.dtype))
                    found.setdefault("features", []).append(weight * loss)
            for task, predictions in lesson.predictions.items():
                said = full(inside.predictions[task])
                loss = predictions(said, full(seen.predictions[task]).to(said.dtype))
                found.setdefault("logits", []).append(lesson.logits[task] / asked[task] * loss)
        tasks = len(self.tasks[batch.domain])
        return {what: fade * torch.stack(values).sum() / tasks for what, values in found.items()}

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
            optimizer = self.optimizers.get(name)
            if optimizer is None or not self.gradients([name]):  # of teachers that were left out
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
        optim = optimizer_state(self.optimizers, self.parameters)
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
        load_optimizer_state(self.optimizers, self.parameters, optim)


def faded(progress: float, annealing: str) -> float:
    """What is left of the teachers' weight when this part of the training is over."""
    if annealing == "linear":
        return max(0.0, 1 - progress)
    if annealing == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return 1.0


def full(tensor: Tensor) -> Tensor:
    """Never in half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
