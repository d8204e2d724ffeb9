"""Full sharing: domains with the same labels share their heads' weights too.

Classes pair by name where two domains' label sets are the same, whatever their order; by index only
when asked (the experiment of Bilen & Vedaldi 2017), where their numbers are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from onetrunk.data.task import LABELLED, Task
from onetrunk.errors import BadInput
from onetrunk.nn.bank import Slots
from onetrunk.nn.card import Card
from onetrunk.nn.heads import Dense, Embed, Heads, Numbers, Pooled, Refined, key_of


class Shared(nn.Module):
    """A domain's view of a head that it shares: the same outputs in its own classes' order."""

    order: Tensor | None

    def __init__(self, head: nn.Module, order: list[int] | None) -> None:
        super().__init__()
        self.held = (head,)  # not a submodule: it belongs to the model
        places = None if order is None else torch.tensor(order)
        self.register_buffer("order", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The shared head's outputs, this domain's classes in this domain's order."""
        y: Tensor = self.held[0](x)
        return y if self.order is None else y.index_select(1, self.order)

    @torch.no_grad()
    def separate(self) -> nn.Module:
        """A head of its own that answers the same."""
        head = copy.deepcopy(self.held[0])
        if self.order is not None:
            outermost = head.last if isinstance(head, Refined) else head
            for parameter in outermost.parameters():
                parameter.data = parameter.data[self.order].clone()
        return head


def join(
    shared: nn.ModuleList,
    cards: Mapping[str, Card],
    heads: Slots,
    card: Card,
    new: Heads,
    pair: str,
) -> None:
    """Let a new domain's heads be the model's where another domain has the same labels."""
    for task in card.tasks:
        key = key_of(task.name)
        mine = new.of[key]
        if type(mine) not in (Pooled, Numbers, Dense, Refined, Embed):
            continue
        partner = _partner(task, cards, pair)
        if partner is None:
            shared.append(mine)
            new.of[key] = Shared(mine, None)
            continue
        name, other = partner
        theirs = heads[name]
        assert isinstance(theirs, Heads)
        head = theirs.of[key_of(other.name)]
        if not isinstance(head, Shared):
            continue
        view = Shared(head.held[0], _order(head, task, other, pair))
        if {p.shape for p in view.separate().parameters()} == {p.shape for p in mine.parameters()}:
            new.of[key] = view.to(next(mine.parameters()).device)


def _partner(task: Task, cards: Mapping[str, Card], pair: str) -> tuple[str, Task] | None:
    for name, card in cards.items():
        for other in card.tasks:
            if other.kind != task.kind:
                continue
            if task.kind not in LABELLED:
                same = other.name == task.name and other.outputs == task.outputs
            elif pair == "index":
                same = len(other.classes) == len(task.classes)
            else:
                same = set(other.classes) == set(task.classes)
            if same:
                return name, other
    return None


def _order(head: Shared, task: Task, other: Task, pair: str) -> list[int] | None:
    """Where each of the task's classes stands among the shared head's outputs."""
    if pair == "index" or task.kind not in LABELLED or task.kind == "embed":
        return None if head.order is None else head.order.tolist()
    at = {name: place for place, name in enumerate(other.classes)}
    order = [at[name] for name in task.classes]
    if head.order is not None:
        order = [int(head.order[place]) for place in order]
    return None if order == list(range(len(order))) else order


def separate(heads: Heads) -> Heads:
    """A copy of a domain's heads that shares nothing."""
    memo: dict[int, object] = {}
    for head in heads.of.values():
        if isinstance(head, Shared):
            memo[id(head)] = head.separate()
    return copy.deepcopy(heads, memo)


def agree(heads: Heads, given: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights of shared heads that are not the model's."""
    for key, value in separate(heads).state_dict().items():
        head = heads.of[key.split(".")[1]] if key.startswith("of.") else None
        if isinstance(head, Shared) and not torch.equal(given[key].to(value), value):
            raise BadInput(
                f"{where}: its head is not the one that this model's domains share",
                got=key,
                try_="load it into a copy of the model that it came from",
            )
