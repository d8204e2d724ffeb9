"""Full sharing: domains with the same labels share the weights of their heads.

By default classes are paired by name, if two domains have the same set of labels in any order. On
request they are paired by index, if two domains have the same number of classes (the experiment of
Bilen & Vedaldi 2017).
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


class SharedHead(nn.Module):
    """A domain's view of a shared head: its outputs in the order of the domain's classes."""

    order: Tensor | None

    def __init__(self, head: nn.Module, order: list[int] | None) -> None:
        super().__init__()
        self.held = (head,)  # not a submodule: the model owns it
        places = None if order is None else torch.tensor(order)
        self.register_buffer("order", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for this domain's classes, in their order."""
        y: Tensor = self.held[0](x)
        return y if self.order is None else y.index_select(1, self.order)

    @torch.no_grad()
    def separate(self) -> nn.Module:
        """Return a separate head with the same outputs."""
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
    """Replace heads of a new domain by shared ones if another domain has the same labels.

    Args:
        shared: The model's shared heads; new ones are appended.
        cards, heads: Those of the model's domains.
        card, new: The card and the heads of the new domain.
        pair: "name" or "index".
    """
    for task in card.tasks:
        key = key_of(task.name)
        own = new.of[key]
        if type(own) not in (Pooled, Numbers, Dense, Refined, Embed):
            continue
        partner = _partner(task, cards, pair)
        if partner is None:
            shared.append(own)
            new.of[key] = SharedHead(own, None)
            continue
        name, other = partner
        theirs = heads[name]
        assert isinstance(theirs, Heads)
        head = theirs.of[key_of(other.name)]
        if not isinstance(head, SharedHead):
            continue
        view = SharedHead(head.held[0], _order(head, task, other, pair))
        if {p.shape for p in view.separate().parameters()} == {p.shape for p in own.parameters()}:
            new.of[key] = view.to(next(own.parameters()).device)


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


def _order(head: SharedHead, task: Task, other: Task, pair: str) -> list[int] | None:
    """Return the output of the shared head for each class of the task; None if in order."""
    if pair == "index" or task.kind not in LABELLED or task.kind == "embed":
        return None if head.order is None else head.order.tolist()
    at = {name: place for place, name in enumerate(other.classes)}
    order = [at[name] for name in task.classes]
    if head.order is not None:
        order = [int(head.order[place]) for place in order]
    return None if order == list(range(len(order))) else order


def separate(heads: Heads) -> Heads:
    """Return a copy of a domain's heads, none of which is shared."""
    memo: dict[int, object] = {}
    for head in heads.of.values():
        if isinstance(head, SharedHead):
            memo[id(head)] = head.separate()
    return copy.deepcopy(heads, memo)


def check_equal(heads: Heads, given: Mapping[str, Tensor], where: str) -> None:
    """Raise BadInput for weights of shared heads that differ from the model's."""
    for key, value in separate(heads).state_dict().items():
        head = heads.of[key.split(".")[1]] if key.startswith("of.") else None
        if isinstance(head, SharedHead) and not torch.equal(given[key].to(value), value):
            raise BadInput(
                f"{where}: its head differs from the one that this model's domains share",
                got=key,
                try_="load it into a copy of the model that it was saved from",
            )
