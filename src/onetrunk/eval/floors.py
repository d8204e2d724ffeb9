"""Scores of predictions that need no network: floors that a trained network should be well below.

| floor | prediction |
|---|---|
| constant | the same for every image: the most frequent class (classify, segment), the labels' frequencies (multilabel), the mean (regress), the median (depth), the mean direction (normals), equal embeddings (embed) |
| neighbour | the label of the training image with the nearest pixels (Euclidean distance); for embed, the normalized pixels are the embedding; not for tasks with a prediction per pixel |

Constants come from the training labels, of maps from a sample. For neighbours, at most 5,000
training images are used, and images are averaged to at most 32×32 pixels.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.class_counts import is_labelled
from onetrunk.data.domain import Domain
from onetrunk.data.split import Split, as_tensor
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.eval.evaluate import evaluate_batches, plan_batches
from onetrunk.eval.model_split import even_batches, sample_places, split_for
from onetrunk.eval.result import EvaluationResult
from onetrunk.nn.card import Card
from onetrunk.progress import Track, tracked

MAX_MAPS = 200  # training images whose maps give the constant of a dense task
MAX_NEIGHBOURS = 5000  # training images
SIDE = 32  # pixels; larger images are averaged
Predict = Callable[[Tensor], Mapping[str, Tensor]]


def constant_floor(
    domain: Domain, card: Card, split: str = "test", *, seed: int = 0
) -> EvaluationResult:
    """Evaluate constant predictions of a domain's tasks; tasks without training labels are left out.

    Args:
        domain: The domain.
        card: Its tasks, classes and pixel pipeline in a model.
        split: The split that is evaluated.
        seed: The seed of the sample of maps.
    """  # noqa: E501
    train = split_for(domain, card, "train", quiet=True)
    maps = _sampled_maps(train, card, seed)
    found = {
        task.name: _constant(task, maps[task.name] if task.dense else train.label(task.name))
        for task in card.tasks
        if task.kind == "embed" or len(train)
    }
    constants = {name: constant for name, constant in found.items() if constant is not None}

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        count, size = len(pixels), pixels.shape[-2:]
        return {
            name: constant.view(1, -1, 1, 1).expand(count, -1, *size)
            if card.task(name).dense
            else constant.expand(count, -1)
            for name, constant in constants.items()
        }

    return _evaluate(domain, card, split, constants, predict)


def neighbour_floor(
    domain: Domain, card: Card, split: str = "test", *, seed: int = 0
) -> EvaluationResult:
    """Evaluate predictions of the nearest training image; the arguments are as above."""
    tasks = [task for task in card.tasks if not task.dense]
    train = split_for(domain, card, "train", quiet=True)
    if not tasks or not len(train):
        return EvaluationResult(split, (), quiet=True)
    places = sample_places(train, domain.name, MAX_NEIGHBOURS, seed)
    parts = tracked(even_batches(places), f"{domain.name}: reading batches of training images")
    keys = torch.cat([_flat(train.batch(part)[0]) for part in parts])
    labels = {task.name: train.label(task.name)[places] for task in tasks}
    known = {
        task.name: np.flatnonzero(is_labelled(task, labels[task.name]))
        for task in tasks
        if task.kind != "embed"
    }

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        rows = _flat(pixels)
        outputs = {}
        for task in tasks:
            if task.kind == "embed":
                outputs[task.name] = F.normalize(rows)
            elif len(known[task.name]):
                candidates = keys[known[task.name]]
                half = candidates.square().sum(1) / 2  # ‖x − k‖² = ‖x‖² − 2(x·k − ‖k‖²/2)
                nearest = known[task.name][(rows @ candidates.T - half).argmax(1).numpy()]
                outputs[task.name] = _as_output(task, labels[task.name][nearest])
        return outputs

    predicted = [t.name for t in tasks if t.kind == "embed" or len(known[t.name])]
    return _evaluate(domain, card, split, predicted, predict)


def _evaluate(
    domain: Domain, card: Card, split: str, tasks: Sequence[str] | Mapping[str, Tensor], p: Predict
) -> EvaluationResult:
    images = split_for(domain, card, split, quiet=True)
    predicted = replace(card, tasks=tuple(card.task(name) for name in tasks)) if tasks else None
    if predicted is None or not len(images):
        return EvaluationResult(split, (), quiet=True)
    batches = plan_batches(card, len(images), split)
    about = f"{domain.name}: scoring {len(images):,} images"
    with torch.inference_mode(), Track(about, len(images)) as track:
        results = evaluate_batches(predicted, images, batches, p, track)
    return EvaluationResult(split, results, quiet=True)


# -- labels


def _as_output(task: Task, labels: NDArray[np.generic]) -> Tensor:
    """Return labels in the form of a head's outputs."""
    target = as_tensor(labels)
    if task.kind == "classify":
        return F.one_hot(target, len(task.classes)).float()
    return target.float()


def _constant(task: Task, labels: NDArray[np.generic]) -> Tensor | None:
    """Return the best constant output of a task, (outputs,); None without a label."""
    if task.kind == "embed":
        return torch.ones(1)
    if task.kind == "segment":
        return _most_frequent(labels[labels != NO_PIXEL].astype(np.int64), len(task.classes))
    if task.kind == "depth":
        depths = labels[labels > 0]  # type: ignore[operator]
        return torch.tensor([float(np.median(depths.astype(np.float64)))]) if depths.size else None
    if task.kind == "normals":
        total = labels.astype(np.float64).reshape(-1, 3).sum(0)
        length = float(np.linalg.norm(total))
        return torch.from_numpy(total / length).float() if length > 0 else None
    known = labels[is_labelled(task, labels)]
    if not len(known):
        return None
    if task.kind == "classify":
        return _most_frequent(known.astype(np.int64), len(task.classes))
    return torch.from_numpy(known.astype(np.float64).mean(0)).float()


def _most_frequent(labels: NDArray[np.int64], classes: int) -> Tensor | None:
    if not labels.size:
        return None
    best = int(np.bincount(labels, minlength=classes).argmax())
    return F.one_hot(torch.tensor(best), classes).float()


def _sampled_maps(train: Split, card: Card, seed: int) -> dict[str, NDArray[np.generic]]:
    """Return the maps of a sample of training images, by dense task, with the channels last."""
    dense = [task.name for task in card.tasks if task.dense]
    if not dense or not len(train):
        return {name: np.zeros((0, 3)) for name in dense}
    places = sample_places(train, card.name, MAX_MAPS, seed)
    batches = [train.stored(part)[1] for part in even_batches(places)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in dense}


def _flat(pixels: Tensor) -> Tensor:
    """Return images as rows of at most 3·SIDE² numbers."""
    height, width = pixels.shape[-2:]
    pixels = pixels.float()
    if max(height, width) > SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, (min(height, SIDE), min(width, SIDE)))
    return pixels.flatten(1)
