"""Starting from a finished model: its trunk, and the slots and heads of the domains it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from onetrunk.errors import BadInput
from onetrunk.nn.saving import models_of
from onetrunk.nn.shared_heads import SharedHead, separate
from onetrunk.nn.universal import Universal
from onetrunk.progress import say


def start_from(folder: Path, models: Mapping[str, Universal]) -> None:
    """Give these models the weights of a finished run (`init = RUN`).

    Specialists go on each from its own; from a run of one network they all start with its trunk.
    """
    found = models_of(folder)
    if not found:
        raise BadInput(f"{folder} holds a model without domains", try_="train it first")
    several = len({id(other) for other in found.values()}) > 1
    for part, model in models.items():
        if several and part not in found:  # whose trunk it were to take would be chance
            raise BadInput(
                f"init: {folder} holds a network for each domain, "
                + (f"and none for {part}" if part else "not one to start from"),
                got=part or None,
                available=found,
                try_="start from a run with sharing = 'deep'",
            )
        theirs = found.get(part) or next(iter(found.values()))
        keys = ("arch", "norm", *(("own_stages",) if theirs.trunk.own_stages else ()))
        for key in keys:
            ours, got = getattr(model.trunk, key), getattr(theirs.trunk, key)
            if ours != got:
                raise BadInput(f"init: trunk.{key} is to be that of {folder}, {got!r}", got=ours)
        known = adopt(model, theirs)
        new = [name for name in model.domains if name not in known]
        say(
            f"starting from {folder}: its trunk; domains that go on: {', '.join(known) or 'none'}; "
            f"new: {', '.join(new) or 'none'}"
        )


def one_trunk(folder: Path, place: str = "") -> Universal:
    """The network of a run whose domains all share it; `place`: what asks for it, for people."""
    found = models_of(folder)
    models = {id(model): model for model in found.values()}
    if len(models) != 1:
        raise BadInput(
            f"{place}{folder} holds no one trunk that all of its domains share",
            got=f"{len(models)} networks",
            available=found,
            try_="a run with sharing = 'deep'",
        )
    return next(iter(models.values()))


@torch.no_grad()
def adopt(model: Universal, other: Universal) -> list[str]:
    """The other's shared weights, and all that is a domain's own where a domain is in both with the
    same tasks and adapters; these domains. Any other domain starts as a new one would."""
    model.trunk.load_shared(other.trunk.shared())
    known: list[str] = []
    learned: set[int] = set()  # heads that domains share: the first one that knows them says
    for name, card in model.domains.items():
        for bank in model.trunk.banks().values():
            fresh, slot = bank.make_slot(), bank.slots.get(name)
            if fresh is not None and slot is not None:
                slot.load_state_dict(fresh.state_dict())
        theirs = other.domains.get(name)
        if theirs is None or any(
            getattr(card, key) != getattr(theirs, key) for key in ("tasks", "adapters", "rank")
        ):
            continue
        known.append(name)
        mine, got = model.own(name), other.own(name)
        for key in mine.keys() & got.keys():
            mine[key].copy_(got[key])
        ours, apart = model.heads_of(name), separate(other.heads_of(name))
        for task in card.tasks:
            take_head(ours.head(task.name), apart.head(task.name), learned)
    return known


def take_head(head: nn.Module, given: nn.Module, learned: set[int]) -> None:
    """A head's numbers; of one that domains share, each at its own place of this domain's order."""
    if not isinstance(head, SharedHead):
        head.load_state_dict(given.state_dict())
        return
    held = head.held[0]
    if id(held) in learned:
        return
    learned.add(id(held))
    numbers = given.state_dict()
    for key, tensor in held.state_dict().items():
        if head.order is None:
            tensor.copy_(numbers[key])
        else:
            tensor[head.order] = numbers[key]
