"""Lessons: what each teacher of a domain teaches, and what it is compared by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from onetrunk.config.distill import Distill
from onetrunk.data.domain import Domain
from onetrunk.nn.universal import Universal
from onetrunk.train.distill.aligner import Aligner
from onetrunk.train.distill.cosine import cosine
from onetrunk.train.distill.feature_losses import FeatureLoss, feature_loss
from onetrunk.train.distill.logits import Predictions, make_predictions
from onetrunk.train.distill.pairs import Pairs, pairs_of
from onetrunk.train.distill.standardize import Standard, standard
from onetrunk.train.distill.teachers import Teacher, widths


@dataclass
class Lesson:
    """What one teacher teaches of one domain."""

    teacher: Teacher
    pairs: Pairs
    loss: FeatureLoss | None
    aligners: nn.ModuleList  # one for each pair
    predictions: Mapping[str, Predictions]  # by task
    features: Mapping[str, float]  # weight of its features, by task
    logits: Mapping[str, float]  # weight of its predictions, by task
    standard: Mapping[str, Standard]  # of its features by point, where they are standardised


def make_lessons(
    model: Universal,
    domain: Domain,
    teachers: Sequence[Teacher],
    distill: Distill,
    batch: int,
    device: torch.device,
) -> list[Lesson]:
    """A lesson for each teacher of a domain; the aligners have the student's type of numbers."""
    inside = widths(model, domain.name)
    like = next(model.parameters())
    loss = feature_loss(distill.features, batch)
    several = together(teachers)
    found = []
    for teacher in teachers:
        pairs = pairs_of(domain, teacher, distill, inside)
        points = [theirs for _, theirs in pairs]
        standards: Mapping[str, Standard] = {}
        if points and (several or loss is cosine):
            standards = standard(teacher, domain, points, device, "phi-s" if several else "channel")
        made = [Aligner(inside[m], teacher.widths[t], distill.aligner) for m, t in pairs]
        predictions = {
            task.name: prediction
            for task in domain.tasks
            if task.name in teacher.predictions
            and distill.logits
            and (prediction := make_predictions(task, domain, distill.temperature)) is not None
        }
        found.append(
            Lesson(
                teacher,
                pairs,
                loss,
                nn.ModuleList(made).to(device, like.dtype),
                predictions,
                {t: weight_of(distill.feature_weight, domain.name, t) for t in teacher.tasks},
                {t: weight_of(distill.logit_weight, domain.name, t) for t in teacher.tasks},
                standards,
            )
        )
    return found


def together(teachers: Sequence[Teacher]) -> bool:
    """Whether several of them teach one task by their features."""
    taught = Counter(task for teacher in teachers if teacher.widths for task in teacher.tasks)
    return any(count > 1 for count in taught.values())


def weight_of(given: float | Mapping[str, float], domain: str, task: str) -> float:
    """A weight of the settings: one for all, or by "domain/task", by domain, else 1."""
    if isinstance(given, float):
        return given
    return given.get(f"{domain}/{task}", given.get(domain, 1.0))
