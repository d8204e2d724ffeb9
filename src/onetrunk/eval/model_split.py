"""A domain's split as a model sees it: through the pixels' contract that the model's card keeps."""

from __future__ import annotations

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.stored_images import Frames, layers_of
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.progress import say


def split_for(domain: Domain, card: Card, name: str, quiet: bool = False) -> Split:
    """The split `name` of a domain, as the card's pixels show it; other tasks are refused.

    Where the domain now says another size, fit or normalization than the model learned with, the card
    is right, and a line says so where it shows other pixels.
    """
    check_tasks(domain, card)
    if stored(domain.shape) != stored(card.pixels) and not quiet:
        say(
            f"{domain.name}: seen as the model learned it, {shown(card.pixels)} "
            f"and not {shown(domain.shape)}"
        )
    return split_through(domain, card.pixels, name)


def split_through(domain: Domain, pixels: Pixels, name: str) -> Split:
    """The split's readable images through any contract.

    From the domain's cache where the stored bytes are the same; otherwise straight from its files,
    by a few threads, without a second cache.
    """
    if name not in SPLITS:
        raise BadInput("unknown split", got=name, available=SPLITS)
    domain.check()
    frames = domain.decoded.frames
    if stored(domain.shape) != stored(pixels):
        layers = layers_of(domain.tasks)
        frames = Frames(None, domain.opened, domain.index.where, pixels, layers)
    return Split(name, domain.good(name), domain.index, frames, pixels)


def stored(pixels: Pixels) -> tuple[object, ...]:
    """What of a contract decides the stored bytes."""
    return pixels.stored, pixels.fit, pixels.fill


def shown(pixels: Pixels) -> str:
    """`32×32 (squash, stored at 36×36)`"""
    size, kept = ("×".join(map(str, pair)) for pair in (pixels.size, pixels.stored))
    return f"{size} ({pixels.fit}, stored at {kept})"


def check_tasks(domain: Domain, card: Card) -> None:
    """The very tasks that the model learned, with the same classes in the same order."""
    mine = {task.name: task for task in domain.tasks}
    for task in card.tasks:
        if task.name not in mine:
            raise BadInput(
                f"{domain.name}: the model learned a task that the domain lacks",
                got=", ".join(mine),
                available=[task.name],
            )
        _same(domain.name, task, mine.pop(task.name))
    if mine:
        raise BadInput(
            f"{domain.name}: the model has no such task",
            got=", ".join(mine),
            available=[task.name for task in card.tasks],
        )


def _same(domain: str, learned: Task, got: Task) -> None:
    where = f"{domain}/{learned.name}"
    if learned.kind != got.kind:
        raise BadInput(f"{where}: the model learned to {learned.kind}", got=got.kind)
    if learned.outputs != got.outputs:
        raise BadInput(f"{where}: the model gives {learned.outputs} numbers", got=got.outputs)
    if learned.classes == got.classes:
        return
    new = [c for c in got.classes if c not in learned.classes]
    lost = [c for c in learned.classes if c not in got.classes]
    if not new and not lost:
        raise BadInput(
            f"{where}: the model's classes are in another order",
            got=", ".join(got.classes[:6]),
            available=learned.classes,
            try_="name them in this order, or read the same source",
        )
    parts = [
        f"{what} {', '.join(c[:6])}" + " …" * (len(c) > 6)
        for what, c in (("new:", new), ("gone:", lost))
        if c
    ]
    raise BadInput(
        f"{where}: its classes are not those that the model learned ({len(learned.classes)})",
        got=f"{len(got.classes)}, {'; '.join(parts)}",
        try_="read the source that it learned from, or onetrunk update RUN NAME SOURCE",
    )
