"""The time of a training step, measured on a few steps whose result is thrown away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from onetrunk.config import Distill, Train
from onetrunk.data.domain import Domain
from onetrunk.nn.universal import Universal
from onetrunk.train.device import deterministic
from onetrunk.train.distill.lwf import OldPredictions
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.learner import NO_DISTILL, Learner
from onetrunk.train.loop import NO_TEACHERS

STEPS = 3  # timed, after one that is not


@dataclass(frozen=True)
class StepTime:
    """The measured cost of a training.

    Args:
        seconds: Of one step.
        images: In one step.
        steps: The length of the training; 0 if it is given in hours.
        epoch: The steps of one pass over the largest domain.
        checkpoint_bytes: The size of a checkpoint.
    """

    seconds: float
    images: float
    steps: int
    epoch: int
    checkpoint_bytes: int


def time_steps(
    model: Universal,
    domains: Sequence[Domain],
    train: Train,
    device: torch.device,
    seed: int = 0,
    teachers: Mapping[str, Sequence[Teacher]] = NO_TEACHERS,
    distill: Distill = NO_DISTILL,
    old_predictions: OldPredictions | None = None,
) -> StepTime:
    """Train a model for a few steps; its weights change."""
    with deterministic(train.deterministic, device):
        learner = Learner(model, domains, train, device, seed, teachers, distill, old_predictions)
        model.train()
        passes = learner.passes()
        learner.step(next(passes))
        began, images = time.perf_counter(), 0
        for _ in range(STEPS):
            groups = next(passes)
            learner.step(groups)
            images += sum(len(batch.images) for group in groups for batch in group)
        seconds = (time.perf_counter() - began) / STEPS
        passes.close()
    tensors, _ = learner.state()
    return StepTime(
        seconds,
        images / STEPS,
        learner.clock.steps,
        max(1, round(learner.loader.sampler.steps_per_epoch / train.accumulate)),
        sum(t.numel() * t.element_size() for t in tensors.values()),
    )
