"""Distillation: the losses that the frozen teachers of a domain add to the losses of its labels.

For a domain with tasks t, each with its teachers k (Li, Liu & Bilen 2022):

    L = mean over t [ w·ℓ_t + a·mean over k ( λ·Σ_p ℓ_feature(A_kp(f_p), g_kp) + μ·ℓ_logits ) ]

f_p are the student's features at point p, g_kp the teacher's, A_kp an aligner of the domain, and a
the annealing factor. Teachers without predictions of a task have no term ℓ_logits, and its mean is
over the others. The features of a teacher of several tasks are compared once and weighted by the
number of tasks. A batch is only passed to the teachers of its domain, as the same views.
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
from onetrunk.nn.feature_points import Outputs
from onetrunk.nn.universal import Universal
from onetrunk.train.device import Precision
from onetrunk.train.distill.matching import to_common_shape
from onetrunk.train.distill.targets import Targets, make_targets
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.losses import full_precision
from onetrunk.train.optimizer import load_optimizer_state, optimizer_state, tensors_under


class Distiller:
    """The teachers of one model, with their aligners and the aligners' optimizers."""

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
        self.task_counts = {domain.name: len(domain.tasks) for domain in domains}
        self.targets: dict[str, list[Targets]] = {}
        for domain in domains:
            if assigned := teachers.get(domain.name, ()):
                for teacher in assigned:
                    teacher.to(precision.device, train.channels_last)
                self.targets[domain.name] = make_targets(
                    model, domain, assigned, distill, domain.batch or train.batch, precision.device
                )
        self.points = {
            name: tuple(dict.fromkeys(point for each in targets for point, _ in each.pairs))
            for name, targets in self.targets.items()
        }
        self.parameters = {
            name: {
                f"{i}/{key}": parameter
                for i, each in enumerate(targets)
                for key, parameter in each.aligners.named_parameters()
            }
            for name, targets in self.targets.items()
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

    def present(self, domain: str, step: int) -> list[Targets]:
        """Return the targets of a step: `teacher_dropout` leaves out some teachers, never all."""
        targets = self.targets.get(domain, [])
        count, drop = len(targets), self.distill.teacher_dropout
        if count < 2 or not drop:
            return targets
        seed = seed_of(self.seed, domain, "teachers")
        draws = Chance(seed, np.full(count, step), np.arange(count))(0)
        present = [each for each, draw in zip(targets, draws, strict=True) if draw >= drop]
        return present or [targets[int(draws.argmax())]]

    def losses(
        self, batch: Batch, images: Tensor, student: Outputs, progress: float, step: int
    ) -> dict[str, Tensor]:
        """Return the weighted and annealed losses of a batch, by "features" and "logits".

        Args:
            images: The images as the student received them.
            student: The student's predictions and features.
            progress: The completed share of the training.
        """
        losses: dict[str, list[Tensor]] = {}
        present = self.present(batch.domain, step)
        factor = annealing_factor(progress, self.distill.annealing)
        with_features = Counter(
            task for each in present if each.pairs for task in each.feature_weights
        )
        with_predictions = Counter(task for each in present for task in each.prediction_losses)
        for each in present:
            points = tuple(dict.fromkeys(point for _, point in each.pairs))
            with self.precision.autocast():
                teacher = each.teacher.forward(images, batch, points)
            weight = sum(
                w / max(with_features[task], 1) for task, w in each.feature_weights.items()
            )
            for (point, teacher_point), aligner in zip(each.pairs, each.aligners, strict=True):
                t = full_precision(teacher.features[teacher_point])
                if teacher_point in each.standardizers:
                    t = each.standardizers[teacher_point](t)
                a, t = to_common_shape(aligner(full_precision(student.features[point])), t)
                if each.feature_loss is not None:
                    loss = each.feature_loss(a, t.to(a.dtype))
                    losses.setdefault("features", []).append(weight * loss)
            for task, prediction_loss in each.prediction_losses.items():
                s = full_precision(student.predictions[task])
                loss = prediction_loss(s, full_precision(teacher.predictions[task]).to(s.dtype))
                weight = each.prediction_weights[task] / with_predictions[task]
                losses.setdefault("logits", []).append(weight * loss)
        tasks = self.task_counts[batch.domain]
        return {name: factor * torch.stack(terms).sum() / tasks for name, terms in losses.items()}

    def gradients(self, domains: Iterable[str]) -> list[Tensor]:
        """Return the gradients of these domains' aligners."""
        every = (p.grad for name in domains for p in self.parameters.get(name, {}).values())
        return [grad for grad in every if grad is not None]

    def step(
        self, domains: Iterable[str], progress: float, scaler: torch.amp.GradScaler | None = None
    ) -> None:
        """Update these domains' aligners and clear their gradients."""
        rate = self.distill.aligner_lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        for name in domains:
            optimizer = self.optimizers.get(name)
            if optimizer is None or not self.gradients([name]):  # its teachers were left out
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
            optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Return the aligners and their optimizers' state; teachers are not part of it."""
        weights = {
            f"weights/{name}/{key}": parameter.detach()
            for name, named in self.parameters.items()
            for key, parameter in named.items()
        }
        optim = optimizer_state(self.optimizers, self.parameters)
        return weights | {f"optim/{place}": tensor for place, tensor in optim.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what `state` returned."""
        for name, named in self.parameters.items():
            for key, parameter in named.items():
                parameter.copy_(tensors[f"weights/{name}/{key}"])
        optim = tensors_under("optim", tensors)
        load_optimizer_state(self.optimizers, self.parameters, optim)


def annealing_factor(progress: float, annealing: str) -> float:
    """Return the factor on the teachers' losses after this share of the training."""
    if annealing == "linear":
        return max(0.0, 1 - progress)
    if annealing == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return 1.0
