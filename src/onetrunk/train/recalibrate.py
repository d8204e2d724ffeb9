"""Recompute the running statistics of each domain's norms from its training images.

For networks whose features have changed since the statistics were collected: merged networks, and
domains added to a trunk without training (Li et al. 2017, "Revisiting batch normalization for
practical domain adaptation"). Statistics are means over batches, not decaying averages (Wu &
Johnson 2021, "Rethinking 'Batch' in BatchNorm"): all norms in one pass, each normalizing by the
batch.
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
from onetrunk.eval.evaluate import distinct_domains, inference, model_for
from onetrunk.eval.model_split import split_for
from onetrunk.nn.norms import NORMS, keeps_statistics
from onetrunk.nn.universal import Universal

IMAGES = 1024  # training images of a domain, at most
BATCH = 64


def recalibrate(
    model: Universal,
    domains: Sequence[Domain],
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    device: torch.device | str | None = None,
) -> None:
    """Replace each domain's running statistics by means over batches of its training images.

    Images are not augmented; their choice depends on the domain's name. Nothing else changes.
    """
    for domain in distinct_domains(domains):
        own = model_for(model, domain.name)
        split = split_for(domain, own.domains[domain.name], "train", quiet=True)
        seed = seed_of("recalibrate", domain.name)
        places = permutation(seed, 0, len(split))[:images]
        with inference(own, device), _collecting(own, domain.name):
            like = next(own.parameters())
            for part in np.array_split(places, math.ceil(len(places) / batch)):
                pixels, _ = split.batch(part)
                own(pixels.to(device=like.device, dtype=like.dtype), domain=domain.name)


@contextmanager
def _collecting(model: Universal, name: str) -> Iterator[None]:
    """Let this domain's norms collect the mean of their batches' statistics inside the block."""
    norms: list[Any] = []  # modules with running statistics
    layers: list[Any] = []  # replaced layers, whose momentum may govern the update
    for bank in model.trunk.banks().values():
        modules = [] if name not in bank.slots else list(bank.slots[name].modules())
        norms += [m for m in modules if keeps_statistics(m)]
        layers.append(bank.get_submodule(bank.inner))
    if not norms:
        raise BadInput(
            f"{name}: recalibration needs running statistics of this domain",
            got=f"norm = {model.trunk.norm!r}",
            available=[each for each in NORMS if NORMS.load(each).domain_statistics],
        )
    norms += [m for m in model.heads_of(name).modules() if keeps_statistics(m)]
    with_momentum = [module for module in (*layers, *norms) if hasattr(module, "momentum")]
    before = [(norm, norm.momentum) for norm in with_momentum]
    try:
        for norm in norms:
            norm.running_mean.zero_()
            norm.running_var.fill_(1)
            norm.num_batches_tracked.zero_()
            norm.training = True
        for norm in with_momentum:
            norm.momentum = None  # torch: a cumulative mean
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum
        for norm in norms:
            norm.training = False
