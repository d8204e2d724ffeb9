"""Measure what a training will cost from a few of its steps, without writing anything."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.runs.train import make_teachers
from onetrunk.train.device import choose_device, deterministic
from onetrunk.train.distill.lwf import find_old_predictions
from onetrunk.train.initialize import start_from
from onetrunk.train.learner import Learner

STEPS = 3  # timed steps, after one that is not


def dry_run(recipe: Recipe, device: str | None = None) -> dict[str, Any]:
    """Estimate the steps, seconds, memory and bytes of a training.

    Args:
        recipe: What would be trained.
        device: "cpu", "cuda", "cuda:1", "mps"; None chooses.

    Returns:
        The sums, and under `parts` the same for each network.
    """
    if recipe.train.frozen:
        raise BadInput(
            "a dry run times training steps, and frozen heads are solved without any",
            got="train.frozen = true",
            try_="train it: it takes minutes",
        )
    place = choose_device(device)
    checked = check(recipe)
    parts: dict[str, dict[str, Any]] = {}
    models = recipe.make_model(checked.domains)
    if recipe.init_folder is not None:
        start_from(recipe.init_folder, models)
    old_predictions = find_old_predictions(recipe, checked.domains)
    teachers, _ = make_teachers(models, checked.domains, recipe)
    for part, model in models.items():
        own = [domain for domain in checked.domains if domain.name in model.domains]
        with deterministic(recipe.train.deterministic, place):
            learner = Learner(
                model,
                own,
                recipe.train,
                place,
                recipe.seed,
                teachers,
                recipe.distill,
                old_predictions,
            )
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
        checkpoint_bytes = sum(t.numel() * t.element_size() for t in tensors.values())
        hours = recipe.train.hours
        total = 3600 * hours if hours else seconds * learner.clock.steps
        cost = budget(model).universal
        parts[part] = {
            "domains": [domain.name for domain in own],
            "steps": learner.clock.steps or round(total / seconds),
            "seconds_per_step": seconds,
            "images_per_s": images / STEPS / seconds,
            "seconds": total,
            "parameters": cost.parameters,
            "model_bytes": cost.bytes,
            "checkpoint_bytes": checkpoint_bytes,
        }
    checkpoints = recipe.train.keep_checkpoints + 1  # and the best
    return {
        "name": recipe.name,
        "out": str(recipe.out_folder),
        "device": str(place),
        "warnings": list(checked.warnings),
        "parts": parts,
        "seconds": sum(part["seconds"] for part in parts.values()),
        "memory_bytes": peak_memory(place),
        "disk_bytes": sum(
            checkpoints * part["checkpoint_bytes"] + part["model_bytes"] for part in parts.values()
        ),
    }


def peak_memory(device: torch.device) -> int | None:
    """The peak memory in bytes, of the GPU or else of this process; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
