"""Agreement of the domains' gradients on the parameters that they share.

With gᵢ the gradient of domain i's mean loss over a few seeded validation batches, with respect to
the shared parameters alone: cos(gᵢ, gⱼ) = gᵢ·gⱼ / (‖gᵢ‖‖gⱼ‖). Above 0 a step for one domain also
lowers the other's loss; below 0 it raises it, which T. Yu et al. call a conflict ("Gradient surgery
for multi-task learning", NeurIPS 2020, arXiv:2001.06782). Gradients of batches are noisy: the
cosine between two halves of one domain's batches shows how large a cosine can be expected to be.

The network is in evaluation mode, so running statistics do not change; afterwards it is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.errors import BadInput
from onetrunk.eval.model_split import sample_places, split_for
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.universal import Universal

# (domain's name, outputs by task, targets by task) to a scalar
Loss = Callable[[str, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
MAX_ENTRIES = 4_000_000  # of a gradient that are compared; a random sample of longer ones

MIN_OWN = 0.2  # cosine between the two halves of a domain; lower ones are noise


@dataclass(frozen=True)
class GradientAgreement:
    """Cosines between the domains' gradients on the shared parameters."""

    domains: tuple[str, ...]
    cosine: NDArray[np.float64]  # (domains, domains); 1 on the diagonal
    own: NDArray[np.float64]  # (domains,): between the two halves of a domain's batches
    length: NDArray[np.float64]  # (domains,): norms of the gradients
    images: tuple[int, ...]  # by domain
    shared: int  # number of shared parameters

    @property
    def noisy(self) -> tuple[str, ...]:
        """The domains whose own halves hardly agree, so that their cosines are noise."""
        pairs = zip(self.domains, self.own, strict=True)
        return tuple(name for name, own in pairs if not own >= MIN_OWN)

    @property
    def reliable(self) -> bool:
        """Whether the halves of every domain agree."""
        return not self.noisy

    @property
    def least(self) -> float:
        """The cosine between halves from which on a domain's gradients count as known."""
        return MIN_OWN

    def share_in_conflict(self) -> float:
        """Return the share of pairs of different domains whose cosine is below 0."""
        pairs = np.triu_indices(len(self.domains), 1)
        return float((self.cosine[pairs] < 0).mean())


def gradient_agreement(
    model: Universal,
    domains: Sequence[Domain],
    loss: Loss,
    *,
    batches: int = 4,
    batch: int = 32,
    split: str = "val",
    seed: int = 0,
) -> GradientAgreement:
    """Compare the domains' gradients on the shared parameters pair by pair.

    Args:
        batches: Batches of each domain, at least 2.
        batch: Images in a batch.
    """
    if len(domains) < 2:
        raise BadInput("gradients are compared between at least two domains", got=len(domains))
    shared = list(model.shared_parameters().values())
    if not shared:
        raise BadInput("the domains share no parameters", got=f"sharing {model.trunk.sharing!r}")
    entries = _sample_entries(sum(p.numel() for p in shared), seed)
    batches = max(2, batches)
    trainable = [parameter.requires_grad for parameter in shared]
    halves: list[tuple[Tensor, Tensor]] = []
    images = []
    try:
        for parameter in shared:
            parameter.requires_grad_(True)
        with eval_mode(model):
            for domain in domains:
                part = split_for(domain, model.domains[domain.name], split)
                places = sample_places(part, domain.name, batches * batch, seed)
                places = np.random.default_rng(seed).permutation(places)  # mixes the classes
                pieces = np.array_split(places, batches)
                halves.append(_gradients(model, domain.name, part, pieces, loss, shared, entries))
                images.append(len(places))
    finally:
        for parameter, before in zip(shared, trainable, strict=True):
            parameter.requires_grad_(before)
    own = np.array([_cosine(one, other) for one, other in halves])
    means = [(one + other) / 2 for one, other in halves]
    cosine = np.eye(len(domains))
    for i in range(len(domains)):
        for j in range(i):
            cosine[i, j] = cosine[j, i] = _cosine(means[i], means[j])
    length = np.array([float(mean.norm()) for mean in means])
    names = tuple(domain.name for domain in domains)
    count = sum(p.numel() for p in shared)
    return GradientAgreement(names, cosine, own, length, tuple(images), count)


def _gradients(
    model: Universal,
    domain: str,
    images: Split,
    batches: Sequence[NDArray[np.int64]],
    loss: Loss,
    shared: Sequence[torch.nn.Parameter],
    entries: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient, flat, of a domain's even batches and of its odd ones."""
    like = next(model.parameters())
    sums: list[Tensor | None] = [None, None]
    for number, places in enumerate(batches):
        pixels, targets = images.batch(places)
        out = model(pixels.to(like.device, like.dtype), domain=domain)
        on_device = {task: target.to(like.device) for task, target in targets.items()}
        total = loss(domain, out, on_device)
        if not total.requires_grad:
            continue  # a batch without any label
        grads = torch.autograd.grad(total, shared, allow_unused=True)
        flat = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten().float()
                for g, p in zip(grads, shared, strict=True)
            ]
        ).cpu()
        flat = flat if entries is None else flat[entries]
        before = sums[number % 2]
        sums[number % 2] = flat if before is None else before + flat
    even, odd = (s if s is not None else torch.zeros(1) for s in sums)
    return even / ((len(batches) + 1) // 2), odd / max(1, len(batches) // 2)


def _sample_entries(count: int, seed: int) -> Tensor | None:
    """Return the entries of a very long gradient from which cosines are estimated."""
    if count <= MAX_ENTRIES:
        return None
    entries = np.random.default_rng(seed).choice(count, MAX_ENTRIES, False)
    return torch.from_numpy(np.sort(entries))


def _cosine(one: Tensor, other: Tensor) -> float:
    product = float(one.double().norm() * other.double().norm())
    return float(one.double() @ other.double()) / product if product > 0 else float("nan")
