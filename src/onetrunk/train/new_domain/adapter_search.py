"""Adapter search: the kind of adapters with the lowest validation error within a size budget."""

from __future__ import annotations

from collections.abc import Sequence

from onetrunk.config.add_recipe import card_adapters
from onetrunk.display import scaled
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.progress import say
from onetrunk.train.new_domain.scratch_model import has_own_slots, make_scratch_model
from onetrunk.train.new_domain.trials import (
    HEADS_ONLY,
    AdapterKind,
    TrialResult,
    TrialRunner,
    pack_bytes,
    trunk_bytes,
)

KINDS = (
    HEADS_ONLY,
    AdapterKind("norm"),
    AdapterKind("lora"),
    AdapterKind("parallel", 8),
    AdapterKind("series"),
    AdapterKind("parallel"),
)

FEW_KINDS = (AdapterKind("parallel"), AdapterKind("norm"))  # for few images


def candidates(runner: TrialRunner, kinds: Sequence[AdapterKind] = KINDS) -> list[AdapterKind]:
    """Return the kinds that this trunk can have within the budget; "none" is always one of them."""
    settings, trunk = runner.recipe.add, trunk_bytes(runner.model)
    chosen: list[AdapterKind] = []
    sizes: set[int] = set()
    for kind in kinds:
        if kind.rank is not None and settings.rank is not None:
            kind = AdapterKind(kind.name, settings.rank)
        size = _initial_bytes(runner, kind)
        if size is None or (size in sizes and kind.rank is not None):
            continue  # the trunk has no such layers, or the rank makes no difference
        if size > settings.budget * trunk and kind != HEADS_ONLY:
            share = f"{scaled(size, 'B')}, {100 * size / trunk:.1f} % of the trunk"
            say(f"{kind.label}: {share}: above the budget")
            continue
        sizes.add(size)
        chosen.append(kind)
    return chosen


def few_kind(runner: TrialRunner) -> AdapterKind | None:
    """Return what is trained for few images: the first of FEW_KINDS that this trunk can have.

    None if it can have neither within the budget.
    """
    kinds = candidates(runner, FEW_KINDS)
    return next(iter(kinds), None)


def _initial_bytes(runner: TrialRunner, kind: AdapterKind) -> int | None:
    """Return the size of an untrained pack; None if the trunk cannot have such adapters."""
    card = Card.of(runner.domain, card_adapters(kind.name), kind.rank)
    try:
        model = make_scratch_model(runner.model, card, runner.recipe.seed)
    except BadInput:
        if kind == HEADS_ONLY:
            raise
        return None
    if kind.name == "norm" and not has_own_slots(model, card.name):
        return None
    return pack_bytes(model.pack(card.name))


def search_adapters(runner: TrialRunner) -> tuple[TrialResult, list[TrialResult], str]:
    """Train every candidate; return the best result, all results, and the reason for the choice.

    The best has the lowest validation error; in a tie, the smallest pack.
    """
    results = [runner.trial(kind) for kind in candidates(runner)]
    best = min(results, key=lambda result: (result.error, result.bytes))
    reason = (
        f"{best.kind.label}: the lowest validation error of {len(results)} kinds within "
        f"{100 * runner.recipe.add.budget:.0f} % of the trunk"
    )
    return best, results, reason
