"""Estimate the cost of a training from a few of its images and steps, without writing anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from onetrunk.config import Recipe
from onetrunk.config.check import check
from onetrunk.config.optimizers import DEFAULT_KEYS
from onetrunk.data.cache_room import large
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.budget import budget
from onetrunk.runs.step_time import time_steps
from onetrunk.runs.train import make_teachers
from onetrunk.store.run_folder import check_place
from onetrunk.train.device import choose_device
from onetrunk.train.distill.lwf import find_old_predictions
from onetrunk.train.initialize import start_from
from onetrunk.train.threads import Threads, choose_threads, probe_step, using_threads


def dry_run(recipe: Recipe, device: str | None = None) -> dict[str, Any]:
    """Estimate the steps, seconds, memory and bytes of a training.

    Up to 16 images of each split are decoded, in memory, and stand for all images. A trunk whose
    pretrained weights would be downloaded has random ones here, which take the same time.

    Args:
        recipe: The recipe of the training.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there is one.

    Returns:
        The totals, under `parts` the values for each network, and under `data` those for the
        images of each domain.
    """
    if recipe.train.frozen:
        raise BadInput(
            "a dry run times training steps, and frozen heads are solved without steps",
            got="train.frozen = true",
            try_="train without --dry-run: it takes minutes",
        )
    place = choose_device(device)
    check_place(recipe.out_folder, touch=False)
    checked = check(recipe, place, sample=True)
    recipe = checked.recipe
    data = {domain.name: _data(domain) for domain in checked.domains}
    parts: dict[str, dict[str, Any]] = {}
    models = recipe.make_model(checked.domains, download=False)
    if recipe.init_folder is not None:
        start_from(recipe.init_folder, models)
    old_predictions = find_old_predictions(recipe, checked.domains)
    teachers, _ = make_teachers(models, checked.domains, recipe)
    threads: Threads | None = None
    for part, model in models.items():
        own = [domain for domain in checked.domains if domain.name in model.domains]
        if threads is None:
            step = probe_step(model, own, recipe.train.batch)
            threads = choose_threads(recipe.train.threads, place, step)
        with using_threads(threads.count):
            timed = time_steps(
                model,
                own,
                recipe.train,
                place,
                recipe.seed,
                teachers,
                recipe.distill,
                old_predictions,
            )
        hours = recipe.train.hours
        total = 3600 * hours if hours else timed.seconds * timed.steps
        cost = budget(model).universal
        parts[part] = {
            "domains": [domain.name for domain in own],
            "steps": timed.steps or round(total / timed.seconds),
            "seconds_per_step": timed.seconds,
            "images_per_s": timed.images / timed.seconds,
            "seconds": total,
            "parameters": cost.parameters,
            "model_bytes": cost.bytes,
            "checkpoint_bytes": timed.checkpoint_bytes,
        }
    checkpoints = recipe.train.keep_checkpoints + 1  # and the best
    return {
        "name": recipe.name,
        "out": str(recipe.out_folder),
        "device": str(place),
        "threads": threads.count if threads is not None else torch.get_num_threads(),
        "choices": list(checked.choices),
        "warnings": [*checked.warnings, *_cache_warnings(checked.domains)],
        "optimizer": optimizer_values(recipe),
        "parts": parts,
        "data": data,
        "decode_seconds": sum(part["decode_seconds"] for part in data.values()),
        "cache_bytes": sum(part["cache_bytes"] for part in data.values()),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "memory_bytes": peak_memory(place),
        "disk_bytes": sum(
            checkpoints * part["checkpoint_bytes"] + part["model_bytes"] for part in parts.values()
        ),
    }


def _data(domain: Domain) -> dict[str, Any]:
    """Return the number of images of a domain, and what it takes to decode and cache them."""
    plan, sample = domain.cache_plan(), domain.sample
    cached = plan is not None and plan.finished
    return {
        "images": len(domain.index),
        "sampled": 0 if sample is None else sample.images,
        "cached": cached,
        "decode_seconds": 0.0 if cached or sample is None else sample.seconds,
        "cache_bytes": 0 if plan is None else plan.missing,
    }


def _cache_warnings(domains: Sequence[Domain]) -> list[str]:
    """Return a warning if the training would need the permission to write so large a cache."""
    fact = large([plan for domain in domains if (plan := domain.cache_plan()) is not None])
    return [f"{fact}; so much is only written with --yes"] if fact else []


def optimizer_values(recipe: Recipe) -> dict[str, Any]:
    """Return the optimizer, the values in force, and which of them are defaults."""
    values = {key: getattr(recipe.train, key) for key in DEFAULT_KEYS}
    return {
        "name": recipe.train.optimizer,
        **{key: value for key, value in values.items() if value is not None},
        "start": recipe.start,
        "defaults": list(recipe.notes()["train"]),
    }


def peak_memory(device: torch.device) -> int | None:
    """Return the peak memory in bytes of the GPU, or else of this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
