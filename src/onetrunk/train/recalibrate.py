"""Running statistics anew: what each domain's norms see of its training images, and nothing learned.

For networks whose features are no longer those that their norms kept statistics of: merged ones, and
domains that came to a trunk without training (Li et al. 2017, "Revisiting batch normalization for
practical domain adaptation"). Means over batches, not a decaying average (Wu & Johnson 2021,
"Rethinking 'Batch' in BatchNorm"): all norms in one pass, each behind the batch's own statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import each_once, evaluating, model_of
from onetrunk.eval.model_split import split_for
from onetrunk.nn.norms import NORMS, keeps_statistics
from onetrunk.nn.universal import Universal

IMAGES = 1024  # training images of a domain that its statistics are taken from, at most
BATCH = 64


def recalibrate(
    model: Universal,
    domains: Sequence[Domain],
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    device: torch.device | str | None = None,
) -> None:
    """Each domain's running statistics anew, the mean over batches of its training images.

    Images are those of evaluation (not augmented), drawn by the domain's name. Nothing else moves.
    """
    for domain in each_once(domains):
        own = model_of(model, domain.name)
        split = split_for(domain, own.domains[domain.name], "train", quiet=True)
        seed = seed_of("recalibrate", domain.name)
        places = permutation(seed, 0, len(split))[:images]
        with evaluating(own, device), _counting(own, domain.name):
            like = next(own.parameters())
            for part in np.array_split(places, math.ceil(len(places) / batch)):
                pixels, _ = split.batch(part)
                own(pixels.to(device=like.device, dtype=like.dtype), domain=domain.name)


@contextmanager
def _counting(model: Universal, name: str) -> Iterator[None]:
    """This domain's norms start at nothing and keep the plain mean of what they see."""
    norms: list[Any] = []  # where statistics are kept
    paced: list[Any] = []  # whose `momentum` says how they move
    for bank in model.trunk.banks().values():
        inside = [] if name not in bank.slots else list(bank.slots[name].modules())
        norms += [m for m in inside if keeps_statistics(m)]
        paced.append(bank.get_submodule(bank.inner))
    if not norms:
        raise BadInput(
            f"{name}: it has no running statistics of its own to take anew",
            got=f"norm = {model.trunk.norm!r}",
            available=[each for each in NORMS if NORMS.load(each).domain_statistics],
        )
    norms += [m for m in model.heads_of(name).modules() if keeps_statistics(m)]
    paced = [module for module in (*paced, *norms) if hasattr(module, "momentum")]
    before = [(norm, norm.momentum) for norm in paced]
    try:
        for norm in norms:
            norm.running_mean.zero_()
            norm.running_var.fill_(1)
            norm.num_batches_tracked.zero_()
            norm.training = True
        for norm in paced:
            norm.momentum = None  # torch's word for the plain mean
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum
        for norm in norms:
            norm.training = False
