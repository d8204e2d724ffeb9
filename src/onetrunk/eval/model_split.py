"""Splits with the pixel pipeline that a model's card stores, and samples of their images."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import Frames, layers_of
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, shorten
from onetrunk.nn.card import Card
from onetrunk.progress import say

BATCH = 64  # images


def split_for(domain: Domain, card: Card, name: str, quiet: bool = False) -> Split:
    """Return a domain's split with the pixel pipeline of a card; other tasks are refused.

    Where the domain now has another size, fit or normalization than the model was trained with,
    those of the card apply. A note is printed if the decoded images differ, unless `quiet`.
    """
    check_tasks(domain, card)
    if _decoding(domain.shape) != _decoding(card.pixels) and not quiet:
        say(
            f"{domain.name}: images are prepared as in training, {_describe(card.pixels)}, "
            f"not {_describe(domain.shape)}"
        )
    return split_through(domain, card.pixels, name)


def split_through(domain: Domain, pixels: Pixels, name: str) -> Split:
    """Return the readable images of a split with any pixel pipeline.

    They come from the domain's cache where the decoded images are the same, otherwise from its
    files, read by a few threads and not cached.
    """
    if name not in SPLITS:
        raise BadInput("unknown split", got=name, available=SPLITS)
    domain.check()
    frames = domain.decoded.frames
    if _decoding(domain.shape) != _decoding(pixels):
        layers = layers_of(domain.tasks)
        frames = Frames(None, domain.opened, domain.index.where, pixels, layers)
    return Split(name, domain.good(name), domain.index, frames, pixels)


def _decoding(pixels: Pixels) -> tuple[object, ...]:
    """Return the part of a pixel pipeline that determines the decoded images."""
    return pixels.stored, pixels.fit, pixels.fill


def _describe(pixels: Pixels) -> str:
    """Describe a pixel pipeline as `32×32 (squash, stored at 36×36)`."""
    size, stored_size = ("×".join(map(str, pair)) for pair in (pixels.size, pixels.stored))
    return f"{size} ({pixels.fit}, stored at {stored_size})"


def sample_places(split: Split, domain: str, count: int, seed: int) -> NDArray[np.int64]:
    """Return at most `count` random places of a split, in order; they depend on seed and domain."""
    if len(split) == 0:
        raise BadInput(f"{domain}: its {split.name} split is empty")
    rng = np.random.default_rng([seed, zlib.crc32(domain.encode())])
    places = rng.choice(len(split), min(count, len(split)), replace=False)
    return np.sort(places).astype(np.int64)


def even_batches(places: NDArray[np.int64], batch: int = BATCH) -> list[NDArray[np.int64]]:
    """Return batches of about equal size, with at most `batch` images each."""
    return np.array_split(places, max(1, -(-len(places) // batch)))


def check_tasks(domain: Domain, card: Card) -> None:
    """Refuse a domain whose tasks, or their classes and order, are not those of the card."""
    tasks = {task.name: task for task in domain.tasks}
    for task in card.tasks:
        if task.name not in tasks:
            raise BadInput(
                f"{domain.name}: the domain lacks a task of the model",
                got=", ".join(tasks),
                available=[task.name],
            )
        _check_same(domain.name, task, tasks.pop(task.name))
    if tasks:
        raise BadInput(
            f"{domain.name}: the model has no such task",
            got=", ".join(tasks),
            available=[task.name for task in card.tasks],
        )


def _check_same(domain: str, trained: Task, given: Task) -> None:
    where = f"{domain}/{trained.name}"
    if trained.kind != given.kind:
        raise BadInput(f"{where}: the model's task is of kind {trained.kind}", got=given.kind)
    if trained.outputs != given.outputs:
        raise BadInput(f"{where}: the model has {trained.outputs} outputs", got=given.outputs)
    if trained.classes == given.classes:
        return
    new = [c for c in given.classes if c not in trained.classes]
    removed = [c for c in trained.classes if c not in given.classes]
    if not new and not removed:
        raise BadInput(
            f"{where}: the model's classes are in another order",
            got=shorten(given.classes, 6),
            available=trained.classes,
            try_="give the classes in this order, or read the same source",
        )
    changes = [
        f"{description} {shorten(classes, 6)}"
        for description, classes in (("new:", new), ("removed:", removed))
        if classes
    ]
    raise BadInput(
        f"{where}: expected the {len(trained.classes)} classes of the model",
        got=f"{len(given.classes)}, {'; '.join(changes)}",
        try_="read the source that it was trained on, or onetrunk update RUN NAME SOURCE",
    )
