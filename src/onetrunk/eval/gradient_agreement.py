"""Agreement of the domains' gradients on the parameters that they share.

With gᵢ the gradient of domain i's mean loss over a few seeded validation batches, by the shared
parameters alone: cos(gᵢ, gⱼ) = gᵢ·gⱼ / (‖gᵢ‖‖gⱼ‖). Above 0 a step for the one helps the other,
below 0 it harms (T. Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020,
arXiv:2001.06782, call that a conflict). Batches are noise: the same cosine between the two halves
of one domain's own batches says how large it can be expected to be at all.

The network stands in evaluation mode, so no running moment moves, and is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.features import draw, evaluating
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal

Loss = Callable[[str, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
# the domain's name, outputs and targets by task: one number
MOST = 4_000_000  # shared numbers that are looked at; of more, so many are drawn by the seed


@dataclass(frozen=True)
class Conflict:
    """Cosines between the domains' gradients on what they share."""

    domains: tuple[str, ...]
    cosine: NDArray[np.float64]  # (domains, domains); 1 on the diagonal
    own: NDArray[np.float64]  # (domains,): one half of a domain's batches against the other
    length: NDArray[np.float64]  # (domains,): of the gradients
    images: tuple[int, ...]  # by domain
    shared: int  # numbers that learn and are shared

    def share_in_conflict(self) -> float:
        """Of the pairs of two domains, how many have a cosine below 0."""
        pairs = np.triu_indices(len(self.domains), 1)
        return float((self.cosine[pairs] < 0).mean())


def conflict(
    model: Universal,
    domains: Sequence[Domain],
    loss: Loss,
    *,
    batches: int = 4,
    batch: int = 32,
    split: str = "val",
    seed: int = 0,
) -> Conflict:
    """The domains' gradients on the shared parameters, compared pair by pair."""
    if len(domains) < 2:
        raise BadInput("gradients agree between at least two domains", got=len(domains))
    shared = list(model.shared_parameters().values())
    if not shared:
        raise BadInput("the domains share no parameters", got=f"sharing {model.trunk.sharing!r}")
    keep = _chosen(sum(p.numel() for p in shared), seed)
    wanted = [parameter.requires_grad for parameter in shared]
    halves: list[tuple[Tensor, Tensor]] = []
    images = []
    try:
        for parameter in shared:
            parameter.requires_grad_(True)
        with evaluating(model):
            for domain in domains:
                one, other, seen = _gradients(
                    model, domain, loss, shared, keep, batches, batch, split, seed
                )
                halves.append((one, other))
                images.append(seen)
    finally:
        for parameter, learns in zip(shared, wanted, strict=True):
            parameter.requires_grad_(learns)
    own = np.array([_cosine(one, other) for one, other in halves])
    means = [(one + other) / 2 for one, other in halves]
    cosine = np.eye(len(domains))
    for i in range(len(domains)):
        for j in range(i):
            cosine[i, j] = cosine[j, i] = _cosine(means[i], means[j])
    length = np.array([float(mean.norm()) for mean in means])
    names = tuple(domain.name for domain in domains)
    return Conflict(names, cosine, own, length, tuple(images), sum(p.numel() for p in shared))


def _gradients(
    model: Universal,
    domain: Domain,
    loss: Loss,
    shared: list[torch.nn.Parameter],
    keep: Tensor | None,
    batches: int,
    batch: int,
    split: str,
    seed: int,
) -> tuple[Tensor, Tensor, int]:
    """The mean gradient over each half of a domain's batches, flat."""
    part = split_for(domain, model.domains[domain.name], split)
    like = next(model.parameters())
    places = draw(part, domain.name, max(2, batches) * batch, seed)
    places = np.random.default_rng(seed).permutation(places)  # not one class a batch
    pieces = np.array_split(places, max(2, batches))
    sums: list[Tensor | None] = [None, None]
    for number, piece in enumerate(pieces):
        images, targets = part.batch(piece)
        out = model(images.to(like.device, like.dtype), domain=domain.name)
        known = {task: target.to(like.device) for task, target in targets.items()}
        total = loss(domain.name, out, known)
        if not total.requires_grad:
            continue  # a batch without any label
        grads = torch.autograd.grad(total, shared, allow_unused=True)
        flat = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten().float()
                for g, p in zip(grads, shared, strict=True)
            ]
        ).cpu()
        flat = flat if keep is None else flat[keep]
        before = sums[number % 2]
        sums[number % 2] = flat if before is None else before + flat
    one, other = (s if s is not None else torch.zeros(1) for s in sums)
    return one / ((len(pieces) + 1) // 2), other / max(1, len(pieces) // 2), len(places)


def _chosen(count: int, seed: int) -> Tensor | None:
    """Of very many numbers those that are looked at: their cosine estimates that of all."""
    if count <= MOST:
        return None
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(count, MOST, False)))


def _cosine(one: Tensor, other: Tensor) -> float:
    product = float(one.double().norm() * other.double().norm())
    return float(one.double() @ other.double()) / product if product > 0 else float("nan")
