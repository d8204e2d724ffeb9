"""The summary of a network with several domains, which `print(model)` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from onetrunk.display import Summary, plural, scaled
from onetrunk.nn.card import Card
from onetrunk.nn.trunk import Trunk


def summary_of(
    trunk: Trunk,
    cards: Mapping[str, Card],
    shared: Mapping[str, Tensor],
    own: Callable[[str], Mapping[str, Tensor]],
) -> Summary:
    """Return the trunk, its parameters, and a row for each task of each domain.

    Args:
        shared: The parameters that all domains share.
        own: Returns the parameters of one domain.
    """
    owned = {name: own(name) for name in cards}
    every = {id(p): p.numel() for part in (shared, *owned.values()) for p in part.values()}
    parameters = f"{scaled(sum(every.values()))} parameters"
    facts = [("norm", trunk.norm), ("sharing", trunk.sharing), ("adapters", trunk.adapters)]
    if trunk.own_stages:
        facts.append(("stages of each domain", ", ".join(trunk.own_stages)))
    facts.append(("shared", f"{scaled(sum(p.numel() for p in shared.values()))} parameters"))
    rows = []
    for name, card in cards.items():
        size = "×".join(map(str, card.pixels.size))
        count = scaled(sum(p.numel() for p in owned[name].values()))
        for place, task in enumerate(card.tasks):
            first = (name, size, card.adapters, count) if place == 0 else ("", "", "", "")
            label = task.name if task.name == task.kind else f"{task.name} ({task.kind})"
            rows.append((first[0], label, task.labels, *first[1:]))
    columns = ("domain", "task", "labels", "pixels", "adapters", "parameters")
    title = f"Universal({trunk.arch}, {plural(len(cards), 'domain')}, {parameters})"
    return Summary(title, facts, columns, rows)
