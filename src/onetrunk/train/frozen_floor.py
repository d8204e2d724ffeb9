"""The floor of a pretrained trunk: linear heads on its features before any training.

The heads are solved as in frozen_heads.py, but on at most 2,000 training images, and their L2
strength is chosen on at most 500 validation images. So the cost is little more than one evaluation
of the split.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.config import Train
from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import Failed
from onetrunk.eval.evaluate import inference, plan_batches
from onetrunk.eval.model_split import sample_places, split_for
from onetrunk.eval.result import EvaluationResult, TaskResult
from onetrunk.nn.heads import Embed, Numbers, Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import tracked
from onetrunk.train.console import duration
from onetrunk.train.features import Features, pooled_features
from onetrunk.train.frozen_heads import LinearHead
from onetrunk.train.interrupt import Stop

MAX_TRAIN, MAX_VAL = 2000, 500  # images


def features_floor(
    model: Universal,
    domain: Domain,
    split: str = "test",
    *,
    seed: int = 0,
    limit: float | None = None,
) -> EvaluationResult:
    """Evaluate linear heads on the features of a trunk, for all tasks with such heads.

    Args:
        model: A network as it was before its training.
        domain: One of its domains.
        split: The split that is evaluated.
        seed: The seed of the samples.
        limit: `Failed` is raised if the features would take more seconds than this.
    """
    heads = model.heads_of(domain.name)
    tasks = [
        task
        for task in model.domains[domain.name].tasks
        if not task.dense and type(heads.head(task.name)) in (Pooled, Numbers, Embed)
    ]
    splits = {
        name: split_for(domain, model.domains[domain.name], name, quiet=True)
        for name in ("train", "val", split)
    }
    if not tasks or not all(len(images) for images in splits.values()):
        return EvaluationResult(split, (), quiet=True)
    places = {name: np.arange(len(images)) for name, images in splits.items()}
    for name, most in (("train", MAX_TRAIN), ("val", MAX_VAL)):
        places[name] = sample_places(splits[name], domain.name, most, seed)
    with inference(model):
        if limit is not None:
            _check_time(model, domain, splits[split], sum(map(len, places.values())), limit)
        features = {
            name: _features(model, domain.name, images, places[name])
            for name, images in splits.items()
        }
    results = [_solved(model, domain, task, features, split, seed) for task in tasks]
    return EvaluationResult(split, results, quiet=True)


def _solved(
    model: Universal,
    domain: Domain,
    task: Task,
    features: dict[str, Features],
    split: str,
    seed: int,
) -> TaskResult:
    """Solve the head of one task, and evaluate it."""
    module = copy.deepcopy(model.heads_of(domain.name).head(task.name))
    head = LinearHead(module, task, domain, features["val"])
    chosen = head.choose(features["train"], Train(), seed, Stop(), Path())
    head.load(chosen.solution)
    scores = head.evaluate(features[split], split)
    return TaskResult(domain.name, task, domain.splits[split], scores, features[split].places)


def _features(model: Universal, name: str, images: Split, places: NDArray[np.int64]) -> Features:
    """Compute the features of some images of a split."""
    parts = _batches(model, name, images.name, places)
    about = f"features of {name}, {images.name}: batches"
    rows = np.concatenate(
        list(tracked(pooled_features(model, name, images, parts), about, len(parts)))
    )
    return Features.of(rows, parts)


def _batches(
    model: Universal, name: str, split: str, places: NDArray[np.int64]
) -> Sequence[NDArray[np.int64]]:
    card, norm = model.domains[name], model.trunk.norm_method
    return [places[part] for part in plan_batches(card, len(places), split, norm)]


def _check_time(model: Universal, domain: Domain, images: Split, count: int, limit: float) -> None:
    """Time one batch, and raise `Failed` if `count` images would take too long."""
    (part, *_) = _batches(model, domain.name, images.name, np.arange(len(images)))
    part = part[:32] if model.trunk.norm_method.batch_statistics is False else part
    seconds = 0.0
    for _ in range(2):  # the first also warms up
        began = time.monotonic()
        for _ in pooled_features(model, domain.name, images, [part]):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        seconds = time.monotonic() - began
    expected = count * seconds / len(part)
    if expected > limit:
        raise Failed(
            f"{domain.name}: features of {count:,} images would take about {duration(expected)}",
            try_="onetrunk report RUN --floors all",
        )
