"""Initialize models from a finished run: its trunk, and the slots and heads of known domains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.nn.saving import models_of
from onetrunk.nn.shared_heads import SharedHead, separate
from onetrunk.nn.universal import Universal
from onetrunk.progress import say


def start_from(folder: Path, models: Mapping[str, Universal], *, quiet: bool = False) -> None:
    """Copy the weights of a finished run (`init = RUN`) into these models.

    Each specialist continues from the specialist of its domain. If the run has one network, all
    specialists start from its trunk.
    """
    available = models_of(folder)
    if not available:
        raise BadInput(f"init: the model in {folder} has no domains", try_="train it first")
    several = len({id(other) for other in available.values()}) > 1
    for part, model in models.items():
        if several and part not in available:  # it is not defined whose trunk to use
            raise BadInput(
                f"init: {folder} holds a network for each domain, "
                + (f"but none for {part}" if part else "so there is no single one to start from"),
                got=part or None,
                available=available,
                try_="start from a run with sharing = 'deep'",
            )
        other = available.get(part) or next(iter(available.values()))
        keys = ("arch", "norm", *(("own_stages",) if other.trunk.own_stages else ()))
        for key in keys:
            got, expected = getattr(model.trunk, key), getattr(other.trunk, key)
            if got != expected:
                raise BadInput(
                    f"init: expected trunk.{key} = {expected!r}, as in {folder}", got=got
                )
        known = copy_weights(model, other)
        new = [name for name in model.domains if name not in known]
        if quiet:
            continue
        say(
            f"starting from {folder}: its trunk; known domains: {', '.join(known) or 'none'}; "
            f"new domains: {', '.join(new) or 'none'}"
        )


def load_shared(folder: Path, setting: str = "") -> Universal:
    """Load the network of a run whose domains all share it.

    Args:
        setting: The beginning of the error, for example "distill.lwf: ".
    """
    available = models_of(folder)
    models = {id(model): model for model in available.values()}
    if len(models) != 1:
        raise BadInput(
            f"{setting}expected a run in which all domains share one trunk: {folder}",
            got=f"{len(models)} networks",
            available=available,
            try_="a run with sharing = 'deep'",
        )
    return next(iter(models.values()))


@torch.no_grad()
def copy_weights(model: Universal, other: Universal) -> list[str]:
    """Copy the shared weights of another model, and the weights of domains that both have.

    A domain is copied if its tasks, adapters and heads are the same in both, or if it had no
    adapters: new ones start with zero effect. Any other is initialized as a new domain. Returns the
    names of the copied domains.
    """
    model.trunk.load_shared(other.trunk.shared())
    known: list[str] = []
    copied: set[int] = set()  # heads that domains share; the first domain decides
    for name, card in model.domains.items():
        for bank in model.trunk.banks().values():
            fresh, slot = bank.make_slot(), bank.slots.get(name)
            if fresh is not None and slot is not None:
                slot.load_state_dict(fresh.state_dict())
        other_card = other.domains.get(name)
        if other_card is None or not _continues(card, other_card):
            continue
        known.append(name)
        own, other_own = model.own(name), other.own(name)
        for key in own.keys() & other_own.keys():
            own[key].copy_(other_own[key])
        heads, other_heads = model.heads_of(name), separate(other.heads_of(name))
        for task in card.tasks:
            _copy_head(heads.head(task.name), other_heads.head(task.name), copied)
    return known


def _continues(card: Card, other: Card) -> bool:
    """Return whether the weights of a domain can be copied from another model."""
    if (card.tasks, card.heads) != (other.tasks, other.heads):
        return False
    return other.adapters == "none" or (card.adapters, card.rank) == (other.adapters, other.rank)


def _copy_head(head: nn.Module, other: nn.Module, copied: set[int]) -> None:
    """Copy a head; the rows of a shared head are in the order of its own classes."""
    if not isinstance(head, SharedHead):
        head.load_state_dict(other.state_dict())
        return
    held = head.held[0]
    if id(held) in copied:
        return
    copied.add(id(held))
    values = other.state_dict()
    for key, tensor in held.state_dict().items():
        if head.order is None:
            tensor.copy_(values[key])
        else:
            tensor[head.order] = values[key]
