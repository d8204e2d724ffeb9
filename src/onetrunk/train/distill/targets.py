"""The targets that a domain's teachers provide: features, through aligners, and predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from onetrunk.config.distill import Distill
from onetrunk.data.domain import Domain
from onetrunk.nn.universal import Universal
from onetrunk.train.distill.aligners import make_aligner
from onetrunk.train.distill.feature_losses import FeatureLoss, load_feature_loss, name_for_batch
from onetrunk.train.distill.matching import Pairs, match_features
from onetrunk.train.distill.prediction_losses import PredictionLoss, make_prediction_loss
from onetrunk.train.distill.standardize import Standardizer, standardizers
from onetrunk.train.distill.teachers import Teacher, feature_widths


@dataclass(eq=False)
class Targets:
    """The targets of one domain from one teacher, with their losses and weights."""

    teacher: Teacher
    pairs: Pairs
    feature_loss: FeatureLoss | None
    aligners: nn.ModuleList  # one for each pair
    prediction_losses: Mapping[str, PredictionLoss]  # by task
    feature_weights: Mapping[str, float]  # by task
    prediction_weights: Mapping[str, float]  # by task
    standardizers: Mapping[str, Standardizer]  # by point of the teacher; empty if not needed


def make_targets(
    model: Universal,
    domain: Domain,
    teachers: Sequence[Teacher],
    distill: Distill,
    batch: int,
    device: torch.device,
) -> list[Targets]:
    """Return the targets of each teacher of a domain; aligners have the student's dtype."""
    widths = feature_widths(model, domain.name)
    like = next(model.parameters())
    feature_loss = load_feature_loss(name_for_batch(distill.features, batch))
    ensemble = share_a_task(teachers)
    targets = []
    for teacher in teachers:
        pairs = match_features(domain, teacher, distill, widths)
        points = [point for _, point in pairs]
        standardized: Mapping[str, Standardizer] = {}
        if points and (ensemble or (feature_loss is not None and feature_loss.standardize)):
            standardized = standardizers(
                teacher, domain, points, device, "phi-s" if ensemble else "channel"
            )
        aligners = [make_aligner(distill.aligner, widths[s], teacher.widths[t]) for s, t in pairs]
        prediction_losses = {
            task.name: loss
            for task in domain.tasks
            if task.name in teacher.predictions
            and distill.logits
            and (loss := make_prediction_loss(task, domain, distill.temperature)) is not None
        }
        targets.append(
            Targets(
                teacher,
                pairs,
                feature_loss,
                nn.ModuleList(aligners).to(device, like.dtype),
                prediction_losses,
                {t: weight_of(distill.feature_weight, domain.name, t) for t in teacher.tasks},
                {t: weight_of(distill.logit_weight, domain.name, t) for t in teacher.tasks},
                standardized,
            )
        )
    return targets


def share_a_task(teachers: Sequence[Teacher]) -> bool:
    """Return whether features of several teachers are targets of one task."""
    counts = Counter(task for teacher in teachers if teacher.widths for task in teacher.tasks)
    return any(count > 1 for count in counts.values())


def weight_of(weights: float | Mapping[str, float], domain: str, task: str) -> float:
    """Return the weight of a task: one number for all, or by "domain/task" or domain, else 1."""
    if isinstance(weights, float):
        return weights
    return weights.get(f"{domain}/{task}", weights.get(domain, 1.0))
