"""The scratch model: a copy of a model's trunk with one new domain, in which it is trained."""

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
from onetrunk.nn.shared_heads import SharedHead
from onetrunk.nn.universal import Universal
from onetrunk.train.losses import target_stats

MAX_DECAY_FACTOR = 10.0
PARAMETERS_PER_IMAGE = 100.0  # adapters with more have a larger weight decay


def make_scratch_model(model: Universal, card: Card, seed: int) -> Universal:
    """Return a copy of the model that has only the domain of this card, with new slots and heads.

    An existing domain of the same name is replaced. If heads are shared (sharing = "full"), the
    other domains stay, frozen; otherwise they are left out, so that checkpoints hold only what is
    trained.
    """
    if model.trunk.sharing == "none":
        raise BadInput(
            "expected a run whose domains share a trunk",
            got="sharing = 'none'",
            try_="onetrunk train with sharing = 'deep', then add to that run",
        )
    scratch = copy.deepcopy(model)
    scratch.learn_only(None)
    full = model.trunk.sharing == "full"
    for name in list(scratch.domains):
        if name == card.name or not full:
            scratch.remove(name)
    with seeded_weights(seed_of(seed, card.name, "grow")):
        scratch.attach(card, *scratch.make_parts(card))
    return scratch


def unfreeze_own(model: Universal, name: str) -> None:
    """Make the slots and heads of a domain trainable, and freeze everything that is shared."""
    model.learn_only(name)
    others = {
        id(head.held[0])
        for other in model.domains
        if other != name
        for head in _shared_heads(model, other)
    }
    for head in _shared_heads(model, name):
        if id(head.held[0]) not in others:  # full sharing, and no other domain has these classes
            head.held[0].requires_grad_(True)


def _shared_heads(model: Universal, name: str) -> list[SharedHead]:
    return [head for head in model.heads_of(name).of.values() if isinstance(head, SharedHead)]


def has_own_slots(model: Universal, name: str) -> bool:
    """Return whether the domain has slots, and not only heads."""
    return any(key.startswith("slots/") for key in model.own(name))


def check_own_norms(model: Universal, name: str, kind: str) -> None:
    """Check that a domain with adapters = "norm" has its own norms in this trunk."""
    if kind == "norm" and not has_own_slots(model, name):
        raise BadInput(
            f"adapters = 'norm': expected a trunk with norms of each domain ({model.trunk.arch})",
            got=f"norm = {model.trunk.norm!r}",
            try_="--adapters none, or parallel",
        )


def scale_heads(model: Universal, domain: Domain) -> None:
    """Set the scale of heads that predict numbers to the training labels' mean and std."""
    for task in domain.tasks:
        head = model.heads_of(domain.name).head(task.name)
        if isinstance(head, Numbers):
            mean, std = target_stats(domain, task)
            with torch.no_grad():
                head.mean.copy_(mean)
                head.std.copy_(std)


def count_adapter_parameters(model: Universal, name: str) -> int:
    """Return the number of parameters of the domain's adapters."""
    slots = [b.slots.get(name) for b in model.trunk.banks().values() if isinstance(b, AdapterBank)]
    return sum(p.numel() for slot in slots if slot is not None for p in slot.parameters())


def decay_factor(parameters: int, images: int) -> float:
    """Return the factor on the weight decay, which is larger for large adapters and few images.

    It is min(10, max(1, P/(100·n))) for P adapter parameters and n training images. (Rebuffi et al.
    2018 choose the decay of adapters by the size of the dataset, up to ten times larger on small
    ones. The ratio also accounts for low-rank adapters, which need less.)
    """
    return min(MAX_DECAY_FACTOR, max(1.0, parameters / (PARAMETERS_PER_IMAGE * max(1, images))))
