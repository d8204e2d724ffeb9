"""Evaluation of a model on a split of every domain, with the scores as a table.

Each domain is evaluated in separate batches, in the order of its split, with the pixel pipeline
that the model's card stores. A norm that uses the statistics of the batch is evaluated in batches
as in training: of the batch size that the card records, in a seeded order that is the same in every
evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.domain_list import list_domains
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.errors import BadInput, Diverged, printable
from onetrunk.eval.evaluation import Evaluation
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.model_split import sample_places, split_for
from onetrunk.eval.result import EvaluationResult, TaskResult
from onetrunk.eval.views import Views, predict_views
from onetrunk.nn.arguments import check_model
from onetrunk.nn.card import Card
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.norms import Norm
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say

Models = Universal | Mapping[str, Universal]  # one for all domains, or one for each
BATCH = 256  # images in a batch, at most
BATCH_BYTES = 64 * 2**20  # of images; outputs (maps of many classes) may need four times as much
TRAINING_BATCH = 64  # images in a training batch, if a card does not record it
READ_AHEAD = 2  # batches


def evaluate(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    intervals: bool = True,
    progress: bool = True,
    notes: bool = True,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
) -> Evaluation:
    """Return the scores of a model, or of one model for each domain, on a split of these domains.

    A task without any labelled image in the split has no rows. Images are not augmented, on no
    split; scores on `train` tell how well the training images are fitted, not how well new ones
    are predicted.

    Args:
        batch: Images in a batch, at most; fewer where memory requires it.
        device: Where to evaluate; by default the model's device. The model is moved back.
        intervals: Whether headlines have 95 % intervals.
        progress: Whether to show progress, and notes.
        notes: Whether to print a line for everything that is left out.
        scales: Scales of the views that maps are averaged over (see views.py).
        mirror: Whether each view is also mirrored.
    """
    result = evaluate_split(
        model,
        domains,
        split,
        batch=batch,
        device=device,
        progress=progress,
        notes=notes,
        scales=scales,
        mirror=mirror,
    )
    return Evaluation.of(result, intervals)


def evaluate_split(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    progress: bool = True,
    notes: bool = True,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    sample: int | None = None,
) -> EvaluationResult:
    """Evaluate as `evaluate` does and return the table, the outcomes and the confusions.

    Args:
        sample: Images of each domain, at most, drawn at random with a fixed seed; by default all.
    """
    if batch < 1:
        raise BadInput("expected a batch of at least one image", got=batch)
    views, notes = Views(tuple(scales), mirror), notes and progress
    jobs = []
    for domain in distinct_domains(domains):
        domain_model = model_for(model, domain.name)
        views.check(domain_model, domain.name)
        card = domain_model.domains[domain.name]
        images = split_for(domain, card, split, quiet=not notes)
        if sample is not None and len(images) > sample:
            images = images.part(sample_places(images, domain.name, sample, seed=0))
        if len(images):
            jobs.append((domain_model, domain.name, images))
        elif notes:
            say(f"{domain.name} is left out: its {split} split has no images")
    results: list[TaskResult] = []
    count = sum(len(images) for _, _, images in jobs)
    with Track(f"evaluating {split}", count) if progress else nullcontext() as track:
        for domain_model, name, images in jobs:
            with inference(domain_model, device):
                results += _evaluate_domain(domain_model, name, images, batch, views, track)
    description = views.description if any(result.task.dense for result in results) else ""
    return EvaluationResult(split, results, quiet=not notes, views=description)


def distinct_domains(domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains as a list; an empty one, or a repeated domain, is refused."""
    listed = list_domains(domains)
    if not listed:
        raise BadInput("expected at least one domain to evaluate", got="none")
    return listed


def model_for(model: Models, domain: str) -> Universal:
    """Return the model of a domain."""
    if isinstance(model, Mapping):
        if domain not in model:
            raise BadInput("there is no model for this domain", got=domain, available=model)
        model = model[domain]
    check_model(model)
    if domain not in model.domains:
        raise BadInput("the model has no such domain", got=domain, available=model.domains)
    return model


@contextmanager
def inference(model: nn.Module, device: torch.device | str | None = None) -> Iterator[None]:
    """Run the block in inference and evaluation mode on a device, then restore the model."""
    home = next(model.parameters()).device
    with eval_mode(model):
        try:
            if device is not None:
                model.to(device)
            with torch.inference_mode():
                yield
        finally:
            if device is not None:
                model.to(home)


def _evaluate_domain(
    model: Universal, name: str, images: Split, batch: int, views: Views, track: Track | None
) -> list[TaskResult]:
    card = model.domains[name]
    norm = model.trunk.norm_method
    batches = plan_batches(card, len(images), images.name, norm, batch, views.pixels)
    like = next(model.parameters())

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        x = pixels.to(device=like.device, dtype=like.dtype, non_blocking=True)
        return predict_views(model, x, name, card.tasks, views)

    return evaluate_batches(card, images, batches, predict, track)


def evaluate_batches(
    card: Card,
    images: Split,
    batches: Sequence[NDArray[np.int64]],
    predict: Callable[[Tensor], Mapping[str, Tensor]],
    track: Track | None,
) -> list[TaskResult]:
    """Evaluate the outputs by task that `predict` returns for the pixels of each batch."""
    scores = {task.name: scores_of(task) for task in card.tasks}
    for pixels, targets in read_ahead(images, batches):
        outputs = predict(pixels)
        for task, score in scores.items():
            score.update(outputs[task], targets[task])
        if track is not None:
            track(len(pixels))
    order = np.concatenate(batches)
    results = [
        TaskResult(card.name, card.task(task), images, score, order)
        for task, score in scores.items()
    ]
    for result in results:
        check_finite(result)
    return results


def check_finite(result: TaskResult) -> None:
    """Refuse to evaluate outputs that are NaN or infinite, naming the first image that has any."""
    images = result.scores.not_finite()
    if len(images):
        first = result.split.key(int(result.order[images[0]]))
        raise Diverged(
            f"{result.domain}/{result.task.name}: the model's outputs are not finite for "
            f"{len(images)} of {len(result.split)} {result.split.name} images, among them "
            f"{printable(first)}",
            try_="an earlier checkpoint, or a smaller learning rate",
        )


def plan_batches(
    card: Card,
    count: int,
    split: str,
    norm: Norm | None = None,
    batch: int = BATCH,
    pixel_ratio: float = 1.0,
) -> list[NDArray[np.int64]]:
    """Return the batches in which a split is evaluated, as places of images.

    Args:
        count: Images in the split.
        norm: The trunk's norm; with batch statistics, batches are those of training.
        batch: Images in a batch, at most.
        pixel_ratio: Pixels of the largest view, divided by those of the image.
    """
    if norm is not None and norm.batch_statistics:
        return shuffled_batches(card, count, split, norm.min_images)
    height, width = card.pixels.size
    channels = sum(task.width for task in card.tasks if task.dense)
    image_bytes = 4 * height * width * pixel_ratio * max(3, channels / 4)
    step = max(1, min(batch, int(BATCH_BYTES // image_bytes)))
    return [np.arange(i, min(i + step, count)) for i in range(0, count, step)]


def shuffled_batches(
    card: Card, count: int, split: str, min_images: int
) -> list[NDArray[np.int64]]:
    """Return batches as in training, where each image is normalized with the others.

    A last batch of fewer than `min_images` images is joined to the one before.
    """
    if count < min_images:
        raise BadInput(
            f"{card.name}: the norm keeps no statistics and needs at least {min_images} images in "
            "a batch",
            got=f"{count} {split} images",
        )
    recorded = card.provenance.get("batch", TRAINING_BATCH)
    step = max(recorded, min_images) if isinstance(recorded, int) else TRAINING_BATCH
    order = permutation(seed_of("evaluate", card.name, split), 0, count)
    starts = list(range(0, count, step))
    if len(starts) > 1 and count - starts[-1] < min_images:
        starts.pop()
    return np.split(order, starts[1:])


def read_ahead(
    images: Split, batches: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Iterate over a split's batches, which a thread reads ahead."""
    pool = ThreadPoolExecutor(1, "onetrunk-evaluate", torch.set_num_threads, (1,))
    waiting: deque[Future[tuple[Tensor, dict[str, Tensor]]]] = deque()
    rest = iter(batches)
    try:
        waiting.extend(pool.submit(images.batch, places) for places in islice(rest, READ_AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(images.batch, places) for places in islice(rest, 1))
            yield done
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False)
