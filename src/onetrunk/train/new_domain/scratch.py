"""The worker: a copy of a model's trunk with one new domain, which learns aside from the model."""

from __future__ import annotations

import copy

import torch

from onetrunk.config.recipe import seeded_weights
from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.errors import BadInput
from onetrunk.nn.adapters import AdapterBank
from onetrunk.nn.card import Card
from onetrunk.nn.heads import Numbers
from onetrunk.nn.shared_heads import Shared
from onetrunk.nn.universal import Universal
from onetrunk.train.losses import target_stats

LARGEST = 10.0  # factor on the decay of large adapters over few images
NUMBERS = 100.0  # of adapters for each training image: above it their decay grows


def make_worker(model: Universal, card: Card, seed: int) -> Universal:
    """The copy, with fresh slots and heads by `card`; a domain of its name is not in it any more.

    The others are left behind, so that checkpoints hold what learns; where heads are shared (full)
    they stay, frozen.
    """
    if model.trunk.sharing == "none":
        raise BadInput(
            "a domain grows on a trunk that domains share",
            got="a run with sharing = 'none'",
            try_="onetrunk train with sharing = 'deep', then add to that run",
        )
    made = copy.deepcopy(model)
    made.learn_only(None)
    full = model.trunk.sharing == "full"
    for name in list(made.domains):
        if name == card.name or not full:
            made.remove(name)
    with seeded_weights(seed_of(seed, card.name, "grow")):
        made.place(card, *made.make(card))
    return made


def learn_own(worker: Universal, name: str) -> None:
    """The domain's slots and heads learn, all that is shared stays in evaluation mode."""
    worker.learn_only(name)
    held = {
        id(head.held[0])
        for other in worker.domains
        if other != name
        for head in _views(worker, other)
    }
    for head in _views(worker, name):
        if id(head.held[0]) not in held:  # with full sharing: the first one that has these classes
            head.held[0].requires_grad_(True)


def _views(worker: Universal, name: str) -> list[Shared]:
    return [head for head in worker.heads_of(name).of.values() if isinstance(head, Shared)]


def owns(worker: Universal, name: str) -> bool:
    """Whether the domain has anything of its own but its heads."""
    return any(key.startswith("slots/") for key in worker.own(name))


def check_own(worker: Universal, name: str, kind: str) -> None:
    """Norms of its own are asked for, and this trunk shares them."""
    if kind == "norm" and not owns(worker, name):
        raise BadInput(
            f"{worker.trunk.arch} shares its norms, so a domain has none of its own",
            got=f"norm = {worker.trunk.norm!r}",
            try_="--adapters none, or parallel",
        )


def scale_heads(worker: Universal, domain: Domain) -> None:
    """Heads that predict numbers start from these training labels' mean and standard deviation."""
    for task in domain.tasks:
        head = worker.heads_of(domain.name).head(task.name)
        if isinstance(head, Numbers):
            mean, std = target_stats(domain, task)
            with torch.no_grad():
                head.mean.copy_(mean)
                head.std.copy_(std)


def adapter_numbers(worker: Universal, name: str) -> int:
    """How many numbers the domain's adapters have."""
    slots = [b.slots.get(name) for b in worker.trunk.banks().values() if isinstance(b, AdapterBank)]
    return sum(p.numel() for slot in slots if slot is not None for p in slot.parameters())


def decay_factor(adapters: int, images: int) -> float:
    """Factor on the weight decay: large adapters over few images are held shorter.

    min(10, max(1, P/(100·n))) for P numbers in adapters and n training images. (Rebuffi et al.
    2018 choose the decay of adapters by the size of the data set, ten times as strong on small
    ones; the ratio says the same of low-rank adapters, which need less.)
    """
    return min(LARGEST, max(1.0, adapters / (NUMBERS * max(1, images))))
