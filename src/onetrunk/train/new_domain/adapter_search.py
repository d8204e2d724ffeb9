"""The ladder: what a domain may own, from nothing to dense adapters, error against bytes.

Everything that the size budget allows is learned, and the lowest validation error is taken, of
equals the smaller pack.
"""

from __future__ import annotations

from collections.abc import Sequence

from onetrunk.config.add_recipe import card_adapters
from onetrunk.errors import BadInput
from onetrunk.eval.budget import scaled
from onetrunk.nn.card import Card
from onetrunk.progress import say
from onetrunk.train.new_domain.scratch import make_worker, owns
from onetrunk.train.new_domain.trial import Ground, Kind, Trial, bytes_of, size_of

RUNGS = (
    Kind("none"),
    Kind("norm"),
    Kind("lora"),
    Kind("parallel", 8),
    Kind("series"),
    Kind("parallel"),
)


def rungs(ground: Ground) -> list[Kind]:
    """What is tried: what this trunk can have and the budget allows; nothing at all always is."""
    limit = ground.growth.add.budget * bytes_of(ground.model)
    chosen: list[Kind] = []
    sizes: set[int] = set()
    rank = ground.growth.add.rank
    for kind in RUNGS:
        if kind.rank is not None and rank is not None:
            kind = Kind(kind.name, rank)
        size = _size(ground, kind)
        if size is None or (size in sizes and kind.rank is not None):
            continue  # this trunk has no such layers, or the rank makes no difference
        if size > limit and kind.name != "none":
            share = size / bytes_of(ground.model)
            say(f"{kind.label}: {scaled(size, 'B')}, {share:.1%} of the trunk: over the budget")
            continue
        sizes.add(size)
        chosen.append(kind)
    return chosen


def _size(ground: Ground, kind: Kind) -> int | None:
    """Bytes of its pack, before anything learns."""
    card = Card.of(ground.domain, card_adapters(kind.name), kind.rank)
    try:
        worker = make_worker(ground.model, card, ground.growth.seed)
    except BadInput:
        if kind.name == "none":
            raise
        return None
    if kind.name == "norm" and not owns(worker, card.name):
        return None
    return size_of(worker.pack(card.name))


def climb(ground: Ground) -> tuple[Trial, list[Trial], str]:
    """The best of all rungs, all of them, and why."""
    tried = [ground.trial(kind) for kind in rungs(ground)]
    best = lowest(tried)
    return (
        best,
        tried,
        (
            f"{best.kind.label}: the lowest validation error of {len(tried)} within "
            f"{ground.growth.add.budget:.0%} of the trunk"
        ),
    )


def lowest(tried: Sequence[Trial]) -> Trial:
    """The lowest error, of equals the fewest bytes."""
    return min(tried, key=lambda trial: (trial.error, trial.bytes))
