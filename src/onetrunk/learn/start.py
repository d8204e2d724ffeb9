"""Starting from a finished model: its trunk, and the slots and heads of the domains it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from onetrunk.errors import wrong
from onetrunk.model.saved import models_of
from onetrunk.model.universal import Universal
from onetrunk.progress import say


@torch.no_grad()
def adopt(models: Mapping[str, Universal], folder: Path) -> None:
    """Give these models the weights of a finished run (`init = RUN`)."""
    found = models_of(folder)
    if not found:
        raise wrong(f"{folder} holds a model without domains", next="train it first")
    for part, model in models.items():
        theirs = found.get(part) or next(iter(found.values()))
        if not part and len({id(other) for other in found.values()}) > 1:
            raise wrong(
                f"init: {folder} holds a network for each domain, not one to start from",
                exists=found,
                next="start from a run with sharing = 'deep'",
            )
        for key in ("arch", "norm"):
            ours, came = getattr(model.trunk, key), getattr(theirs.trunk, key)
            if ours != came:
                raise wrong(f"init: trunk.{key} is to be that of {folder}, {came!r}", came=ours)
        model.trunk.load_shared(theirs.trunk.shared())
        known = [name for name in model.domains if _same(model, theirs, name)]
        for name in known:
            mine, other = model.own(name), theirs.own(name)
            for key in mine.keys() & other.keys():
                mine[key].copy_(other[key])
        new = [name for name in model.domains if name not in known]
        say(
            f"starting from {folder}: its trunk; domains that go on: {', '.join(known) or 'none'}; "
            f"new: {', '.join(new) or 'none'}"
        )


def _same(model: Universal, other: Universal, name: str) -> bool:
    """Whether a domain is in both with the same tasks and adapters: its own weights fit."""
    if name not in other.domains:
        return False
    mine, theirs = model.domains[name], other.domains[name]
    return (mine.tasks, mine.adapters) == (theirs.tasks, theirs.adapters)
