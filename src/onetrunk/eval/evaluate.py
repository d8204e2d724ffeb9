"""Evaluation: every domain's split through its own part of the model, scores as a table.

Each domain runs in pure batches, in the order of its split, through the pixels' contract that the
model's card keeps. The norm `shared-batch` keeps no statistics, so there the batch is part of the
answer: the batch size that the card records and a seeded shuffle, the same in every evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.errors import BadInput, Diverged, printable
from onetrunk.eval.evaluation import PAIRS, EvaluationResult, TaskResult
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.model_split import split_for
from onetrunk.eval.outcomes import Outcomes
from onetrunk.eval.table import Table
from onetrunk.eval.views import Views, prediction
from onetrunk.nn.card import Card
from onetrunk.nn.norms import Norm
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track, say

Models = Universal | Mapping[str, Universal]  # one for all domains, or one for each
BATCH = 256  # images at most in a pass
INPUT = 64 * 2**20  # bytes of images in a pass; outputs, maps of many classes, may take four times
TRAINED = 64  # images in a training batch, where a card does not say it
AHEAD = 2  # batches that are read before they are asked for


def evaluate(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    intervals: bool = True,
    progress: bool = True,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
) -> Table:
    """The scores of a model (or of one model for each domain) on a split of these domains.

    `batch`: images in a pass, at most; fewer where memory asks for it. `intervals`: 95 % ones of
    the headlines. A task without any labelled image in the split has no rows, which is said
    (unless `progress` is off: a training that evaluates often has said it once). `scales` and
    `mirror`: maps are averaged over resized and mirrored views (see views.py), as the table
    says.
    """
    evaluated = run_evaluation(
        model,
        domains,
        split,
        batch=batch,
        device=device,
        progress=progress,
        scales=scales,
        mirror=mirror,
    )
    return evaluated.table(intervals)


def outcomes(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Outcomes:
    """What every image of the split adds to the headlines, to save and to compare runs by."""
    return run_evaluation(
        model, domains, split, batch=batch, device=device, progress=progress
    ).outcomes()


def confusions(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    most: int = PAIRS,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By domain and classify task the most confused pairs: true, predicted, count, share."""
    evaluated = run_evaluation(model, domains, split, batch=batch, device=device, progress=progress)
    return evaluated.confusions(most)


def run_evaluation(
    model: Models,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    progress: bool = True,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
) -> EvaluationResult:
    """The split of every domain through the model, once: table, outcomes and confusions in one.

    `progress`: a bar, and a line for whatever is left out; without it nothing is said.
    """
    if batch < 1:
        raise BadInput("a batch is at least one image", got=batch)
    views = Views(tuple(scales), mirror)
    todo = []
    for domain in each_once(domains):
        own = model_of(model, domain.name)
        views.check(own, domain.name)
        images = split_for(domain, own.domains[domain.name], split, quiet=not progress)
        if len(images):
            todo.append((own, domain.name, images))
        elif progress:
            say(f"{domain.name}: its {split} split has no images: left out")
    evaluated: list[TaskResult] = []
    with Track(f"evaluating {split}", sum(len(images) for _, _, images in todo)) as track:
        for own, name, images in todo:
            with evaluating(own, device):
                evaluated += _one(own, name, images, batch, track if progress else None, views)
    told = views.described if any(one.task.dense for one in evaluated) else ""
    return EvaluationResult(split, evaluated, quiet=not progress, views=told)


def each_once(domains: Sequence[Domain]) -> list[Domain]:
    """At least one domain, none twice."""
    several = [domains] if isinstance(domains, Domain) else list(domains)
    names = [domain.name for domain in several]
    for name in names:
        if names.count(name) > 1:
            raise BadInput("each domain once", got=name)
    if not names:
        raise BadInput("expected at least one domain to evaluate", got="none")
    return several


def model_of(model: Models, name: str) -> Universal:
    """The model that knows this domain."""
    if isinstance(model, Mapping):
        if name not in model:
            raise BadInput("no model for this domain", got=name, available=model)
        model = model[name]
    if name not in model.domains:
        raise BadInput("the model does not know this domain", got=name, available=model.domains)
    return model


@contextmanager
def evaluating(model: nn.Module, device: torch.device | str | None = None) -> Iterator[None]:
    """The model in evaluation mode, on a device; afterwards as it was and where it was."""
    modes = [(module, module.training) for module in model.modules()]
    home = next(model.parameters()).device
    try:
        model.eval()
        if device is not None:
            model.to(device)
        with torch.inference_mode():
            yield
    finally:
        if device is not None:
            model.to(home)
        for module, mode in modes:
            module.training = mode


def _one(
    model: Universal, name: str, images: Split, batch: int, track: Track | None, views: Views
) -> list[TaskResult]:
    """One domain's split through the model."""
    card = model.domains[name]
    scores = {task.name: scores_of(task) for task in card.tasks}
    norm = model.trunk.norm_method
    batches = plan(card, len(images), images.name, norm, batch, views.pixels)
    like = next(model.parameters())
    for pixels, targets in read_ahead(images, batches):
        x = pixels.to(device=like.device, dtype=like.dtype, non_blocking=True)
        predictions = prediction(model, x, name, card.tasks, views)
        for task, score in scores.items():
            score.update(predictions[task], targets[task])
        if track is not None:
            track(len(pixels))
    order = np.concatenate(batches)
    evaluated = [
        TaskResult(name, card.task(task), images, score, order) for task, score in scores.items()
    ]
    for one in evaluated:
        finite(one)
    return evaluated


def finite(evaluated: TaskResult) -> None:
    """A network that gives no numbers is not evaluated; the first of its images is named."""
    broken = evaluated.scores.broken()
    if len(broken):
        first = evaluated.split.key(int(evaluated.order[broken[0]]))
        raise Diverged(
            f"{evaluated.domain}/{evaluated.task.name}: the model's outputs are not finite for "
            f"{len(broken)} of {len(evaluated.split)} {evaluated.split.name} images, {printable(first)} "
            "among them; try: an earlier checkpoint, or a smaller learning rate"
        )


def plan(
    card: Card,
    count: int,
    split: str,
    norm: Norm | None = None,
    batch: int = BATCH,
    larger: float = 1.0,
) -> list[NDArray[np.int64]]:
    """Which places of a split go together, in which order; `larger`: pixels seen for each."""
    if norm is not None and norm.batch_statistics:
        return shuffled(card, count, split, norm.min_images)
    height, width = card.pixels.size
    channels = sum(task.width for task in card.tasks if task.dense)
    bytes_each = 4 * height * width * larger * max(3, channels / 4)
    step = max(1, min(batch, int(INPUT // bytes_each)))
    return [np.arange(i, min(i + step, count)) for i in range(0, count, step)]


def shuffled(card: Card, count: int, split: str, fewest: int) -> list[NDArray[np.int64]]:
    """Batches as in training, where each image is normalised by those beside it.

    A last batch of fewer than `fewest` images joins the one before.
    """
    if count < fewest:
        raise BadInput(
            f"{card.name}: the norm keeps no statistics and needs at least {fewest} images at once",
            got=f"{count} {split} images",
        )
    known = card.provenance.get("batch", TRAINED)
    step = max(known, fewest) if isinstance(known, int) else TRAINED
    order = permutation(seed_of("evaluate", card.name, split), 0, count)
    starts = list(range(0, count, step))
    if len(starts) > 1 and count - starts[-1] < fewest:
        starts.pop()
    return np.split(order, starts[1:])


def read_ahead(
    images: Split, batches: Sequence[NDArray[np.int64]]
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """A split's batches, read by one thread a little ahead of whoever evaluates them."""
    pool = ThreadPoolExecutor(1, "onetrunk-evaluate", torch.set_num_threads, (1,))
    waiting: deque[Future[tuple[Tensor, dict[str, Tensor]]]] = deque()
    rest = iter(batches)
    try:
        waiting.extend(pool.submit(images.batch, places) for places in islice(rest, AHEAD))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(images.batch, places) for places in islice(rest, 1))
            yield done
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False)
