"""A two-dimensional map of pooled features: principal components, then t-SNE.

L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 2008: the similarities of points,
pᵢⱼ (Gaussians whose width gives each point the same perplexity), are matched by those of their
places on the map, qᵢⱼ ∝ 1/(1 + ‖yᵢ − yⱼ‖²), by descent on KL(P‖Q) with the gradient
4 Σⱼ (pᵢⱼ − qᵢⱼ)(yᵢ − yⱼ)/(1 + ‖yᵢ − yⱼ‖²). It starts at the first two principal components
(D. Kobak, P. Berens, Nature Communications 2019), so the same features give the same map. Exact and
quadratic: for a thousand points, seconds. Neighbours on the map mean something, distances between
far groups and the groups' sizes do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.features import draw, pooled
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track

POINTS = 1000  # of all domains together
COMPONENTS = 50  # principal components that neighbours are found in
PERPLEXITY = 30.0
STEPS, EARLY = 500, 250  # of descent; so many with P exaggerated
EXAGGERATION = 12.0


@dataclass(frozen=True)
class Embedding:
    """Where each image lies on the map, and which domain it is of."""

    domains: tuple[str, ...]
    domain: NDArray[np.int64]  # (N,) into `domains`
    xy: NDArray[np.float64]  # (N, 2), each axis centred, the longer side 1
    features: int  # numbers of a pooled feature
    kept: float  # share of the variance that the principal components keep
    perplexity: float
    own_neighbour: float  # share of points whose nearest in the features is of their own domain


def embedding(
    model: Universal,
    domains: Sequence[Domain],
    *,
    points: int = POINTS,
    split: str = "test",
    seed: int = 0,
) -> Embedding:
    """The map of these domains' images, as many of each, each through its own slots."""
    each = max(1, points // max(1, len(domains)))
    found = []
    for domain in domains:
        part = split_for(domain, model.domains[domain.name], split)
        found.append(pooled(model, domain.name, part, draw(part, domain.name, each, seed)))
    domain_N = np.repeat(np.arange(len(domains)), [len(part) for part in found])
    features = torch.cat(found).double()
    if len(features) < 4:
        raise BadInput("a map needs at least 4 images", got=len(features))
    reduced, kept = pca(features, COMPONENTS)
    nearest = torch.cdist(reduced, reduced).fill_diagonal_(math.inf).argmin(1).numpy()
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    xy = tsne(reduced, perplexity).numpy()
    xy = xy - (xy.max(0) + xy.min(0)) / 2
    xy = xy / max(float(np.ptp(xy, axis=0).max()), 1e-12)
    return Embedding(
        tuple(domain.name for domain in domains),
        domain_N,
        xy,
        features.shape[1],
        kept,
        perplexity,
        float((domain_N[nearest] == domain_N).mean()),
    )


def pca(x_NP: Tensor, components: int) -> tuple[Tensor, float]:
    """The first principal components (N, K), K ≤ components, and their share of the variance.

    Each component's sign is fixed (its largest loading is positive), so that maps are repeatable.
    """
    centred = x_NP - x_NP.mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    count = min(components, len(s))
    largest = v[:count].abs().argmax(1, keepdim=True)
    sign = v[:count].gather(1, largest).sign().squeeze(1)
    total = float((s**2).sum())
    kept = float((s[:count] ** 2).sum()) / total if total > 0 else 1.0
    return u[:, :count] * s[:count] * sign, kept


def tsne(x_NK: Tensor, perplexity: float = PERPLEXITY, steps: int = STEPS) -> Tensor:
    """Places (N, 2) on the map."""
    p = affinities(x_NK.double(), perplexity).float()
    first, _ = pca(x_NK.double(), 2)
    if first.shape[1] < 2:
        first = torch.cat([first, torch.zeros_like(first)], 1)
    y = (first / first.std().clamp_min(1e-12) * 1e-4).float()
    rate = max(len(y) / EXAGGERATION / 4, 50.0)
    moved, gain = torch.zeros_like(y), torch.ones_like(y)
    early = min(EARLY, steps // 2)
    with Track("drawing the map of features", steps) as track:
        for step in range(steps):
            slope = gradient(p * EXAGGERATION if step < early else p, y)
            same = slope.sign() == moved.sign()  # of the descent, whose move is against the slope
            gain = torch.where(same, gain * 0.8, gain + 0.2).clamp_min(0.01)
            moved = (0.5 if step < early else 0.8) * moved - rate * gain * slope
            y = y + moved
            y = y - y.mean(0)
            track(1)
    return y.double()


def gradient(p_NN: Tensor, y_N2: Tensor) -> Tensor:
    """Of KL(P‖Q) by the places, for a symmetric P whose sum is 1 (or more, exaggerated)."""
    near = 1 / (1 + torch.cdist(y_N2, y_N2) ** 2)
    near.fill_diagonal_(0)
    pull = (p_NN - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y_N2 - pull @ y_N2)


def affinities(x_NK: Tensor, perplexity: float) -> Tensor:
    """P: symmetric, its sum 1; each point's Gaussian is as wide as the perplexity asks."""
    squared = torch.cdist(x_NK, x_NK) ** 2
    squared = squared / squared.mean().clamp_min(1e-300)
    squared.fill_diagonal_(math.inf)
    low, high = (torch.full((len(x_NK), 1), v, dtype=x_NK.dtype) for v in (-30.0, 30.0))
    nearest = squared.min(1, keepdim=True).values  # taken off, the largest exponent is 0
    for _ in range(60):  # bisection on log β, entropy falls as β grows
        middle = (low + high) / 2
        weight = torch.exp(-(squared - nearest) * middle.exp())
        share = weight / weight.sum(1, keepdim=True)
        entropy = -torch.xlogy(share, share).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return (share + share.T) / (2 * len(x_NK))
