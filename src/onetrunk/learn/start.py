"""Starting from a finished model: its trunk, and the slots and heads of the domains it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from onetrunk.errors import wrong
from onetrunk.model.saved import models_of
from onetrunk.model.universal import Universal
from onetrunk.progress import say


def start_from(folder: Path, models: Mapping[str, Universal]) -> None:
    """Give these models the weights of a finished run (`init = RUN`)."""
    found = models_of(folder)
    if not found:
        raise wrong(f"{folder} holds a model without domains", next="train it first")
    for part, model in models.items():
        if not part and len({id(other) for other in found.values()}) > 1:
            raise wrong(
                f"init: {folder} holds a network for each domain, not one to start from",
                exists=found,
                next="start from a run with sharing = 'deep'",
            )
        theirs = found.get(part) or next(iter(found.values()))
        for key in ("arch", "norm"):
            ours, came = getattr(model.trunk, key), getattr(theirs.trunk, key)
            if ours != came:
                raise wrong(f"init: trunk.{key} is to be that of {folder}, {came!r}", came=ours)
        known = adopt(model, theirs)
        new = [name for name in model.domains if name not in known]
        say(
            f"starting from {folder}: its trunk; domains that go on: {', '.join(known) or 'none'}; "
            f"new: {', '.join(new) or 'none'}"
        )


@torch.no_grad()
def adopt(model: Universal, other: Universal) -> list[str]:
    """The other's shared weights, and all that is a domain's own where a domain is in both with the
    same tasks and adapters; these domains."""
    model.trunk.load_shared(other.trunk.shared())
    known = []
    for name, card in model.domains.items():
        theirs = other.domains.get(name)
        if theirs is None or (card.tasks, card.adapters) != (theirs.tasks, theirs.adapters):
            continue
        known.append(name)
        mine, came = model.own(name), other.own(name)
        for key in mine.keys() & came.keys():
            mine[key].copy_(came[key])
    if known == list(other.domains) == list(model.domains):  # heads that full sharing shares
        for ours, theirs_too in zip(
            model.together.parameters(), other.together.parameters(), strict=True
        ):
            ours.copy_(theirs_too)
    return known
