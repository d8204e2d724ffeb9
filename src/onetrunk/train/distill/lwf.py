"""Learning without forgetting: old answers are held on new images (Li & Hoiem 2016).

A run starts from another (`init = RUN`) and moves its trunk from θ₀ to θ. Of RUN's domains those
that are not learned here are old; in a step one of them, o, is taken in turn, and a batch x adds

    remember · mean over o's tasks t of ℓ_t( f_t(x; θ, φ_o), f_t(x; θ₀, φ_o) ),

φ_o its slots and heads as RUN left them, ℓ the loss between predictions of logits.py. Over steps that
is the mean over old domains. What moves is the trunk alone: RUN's network is kept frozen, in
evaluation mode, and answers a second time with the learner's shared tensors in place of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from onetrunk.config import Distill, Recipe
from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.nn.heads import Numbers
from onetrunk.nn.shared_heads import Shared
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.device import Precision
from onetrunk.train.distill.distiller import full
from onetrunk.train.distill.logits import Predictions, make_predictions
from onetrunk.train.distill.teachers import Eyes
from onetrunk.train.initialize import load_shared


class Memory:
    """What RUN's network says as its old domains."""

    def __init__(self, before: Universal, domains: Sequence[Domain], distill: Distill) -> None:
        """`domains`: all that are learned here."""
        here = [domain.name for domain in domains]
        self.old = tuple(name for name in before.domains if name not in here)
        if not self.old:
            raise BadInput(
                "distill.lwf: every domain of init is learned here, and none is old",
                got=", ".join(here),
                available=before.domains,
                try_="lwf = 0",
            )
        self.before = before.eval().requires_grad_(False)
        self.weight = distill.lwf
        self.losses = {name: losses_of(before, name, distill.temperature) for name in self.old}
        if dumb := [name for name, losses in self.losses.items() if not losses]:
            raise BadInput(
                "distill.lwf: an embedding alone has no answers to hold",
                got=", ".join(dumb),
                try_="learn such a domain here, too, or remember = 0",
            )
        self.eyes = {
            (domain.name, name): Eyes(domain.pixels, before.domains[name].pixels)
            for domain in domains
            for name in self.old
        }
        self.moving: dict[str, Tensor] = {}

    def follow(self, model: Universal, precision: Precision, channels_last: bool) -> None:
        """From now on it is this model's trunk that moves, where this model is."""
        like = next(model.parameters())
        self.before.to(like.device, like.dtype)
        if channels_last:
            self.before.to(memory_format=torch.channels_last)
        for eyes in self.eyes.values():
            eyes.to(like.device)
        self.precision = precision
        places = {id(t): key for key, t in self.before.state_dict(keep_vars=True).items()}
        mine = self.before.trunk.shared()
        self.moving = {places[id(mine[key])]: t for key, t in model.trunk.shared().items()}

    def loss(self, domain: str, images: Tensor, step: int) -> Tensor:
        """Of a batch of this domain as the learner saw it, weighted."""
        old = self.old[step % len(self.old)]
        # statistics that are shared move in the next pass, before what is behind this one is learned
        now = {k: t if isinstance(t, nn.Parameter) else t.clone() for k, t in self.moving.items()}
        with self.precision.autocast():
            x = self.eyes[domain, old](images)
            with torch.no_grad():
                then = self.before(x, domain=old)
            said = functional_call(self.before, now, (x,), {"domain": old})
        losses = [
            loss(full(said[task]), full(then[task])) for task, loss in self.losses[old].items()
        ]
        return self.weight * torch.stack(losses).mean()


def losses_of(model: Universal, name: str, temperature: float) -> Mapping[str, Predictions]:
    """By task what compares two predictions; numbers in the deviations that their head keeps."""
    found: dict[str, Predictions] = {}
    for task in model.domains[name].tasks:
        made = make_predictions(task, None, temperature)
        if made is None:
            continue
        head = model.heads_of(name).head(task.name)
        head = head.held[0] if isinstance(head, Shared) else head
        found[task.name] = in_stds(made, head) if isinstance(head, Numbers) else made
    return found


def in_stds(loss: Predictions, head: Numbers) -> Predictions:
    """The loss of predictions of which each is divided by its scale."""
    return lambda s, t: loss(s / head.std, t / head.std)


def find_memory(recipe: Recipe, domains: Sequence[Domain]) -> Memory | None:
    """What the run that this one starts from is to remember; None where nothing is."""
    folder = recipe.init_folder
    if folder is None or not recipe.distill.uses_lwf:
        return None
    memory = Memory(load_shared(folder, "distill.lwf: "), domains, recipe.distill)
    say(f"old answers are held on the new images: {', '.join(memory.old)}")
    return memory
