"""Measure what the stages of `onetrunk unify` will cost, on a few steps of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from onetrunk.config import Recipe
from onetrunk.data.domain import Domain
from onetrunk.progress import say
from onetrunk.runs.step_time import StepTime, time_steps
from onetrunk.runs.unify.plan import Costs
from onetrunk.train.threads import choose_threads, probe_step, using_threads


def measure_costs(recipe: Recipe, domains: Sequence[Domain], device: torch.device) -> Costs:
    """Return the seconds of steps of one network and of specialists, and of evaluations."""
    say("measuring the time of training steps")
    joint = _step_time(recipe, domains, device)
    alone = [
        _step_time(recipe.only([d.name]).with_sets(['trunk.sharing="none"']), [d], device)
        for d in domains
    ]
    # a forward pass takes about a third of a training step
    per_image = joint.seconds / joint.images / 3
    return Costs(
        specialists=sum(each.seconds for each in alone),
        joint=joint.seconds,
        validation=per_image * sum(len(d.val) for d in domains),
        test=per_image * sum(len(d.test) for d in domains),
        epoch=max(each.epoch for each in (joint, *alone)),
    )


def _step_time(recipe: Recipe, domains: Sequence[Domain], device: torch.device) -> StepTime:
    # random weights take the same time as pretrained ones
    model = next(iter(recipe.make_model(domains, download=False).values()))
    step = probe_step(model, domains, recipe.train.batch)
    threads = choose_threads(recipe.train.threads, device, step)
    with using_threads(threads.count):
        return time_steps(model, domains, recipe.train, device, recipe.seed)
