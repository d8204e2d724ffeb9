"""A two-dimensional map of pooled features: principal components, then t-SNE.

L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 2008: the similarities of points,
pᵢⱼ (Gaussians whose width gives each point the same perplexity), are matched by those of their
positions on the map, qᵢⱼ ∝ 1/(1 + ‖yᵢ − yⱼ‖²), by descent on KL(P‖Q) with the gradient
4 Σⱼ (pᵢⱼ − qᵢⱼ)(yᵢ − yⱼ)/(1 + ‖yᵢ − yⱼ‖²). It starts at the first two principal components
(D. Kobak, P. Berens, Nature Communications 2019), so the same features give the same map. The
computation is exact and quadratic in the points: seconds for a thousand. Which points are
neighbours on the map is meaningful; distances between groups and the sizes of groups are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.model_split import even_batches, sample_places, split_for
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track

POINTS = 1000  # of all domains together
COMPONENTS = 50  # principal components
PERPLEXITY = 30.0
STEPS, EARLY = 500, 250  # steps of descent; the early ones with P exaggerated
EXAGGERATION = 12.0


@dataclass(frozen=True)
class FeatureMap:
    """The position of each image on the map, and its domain."""

    domains: tuple[str, ...]
    domain: NDArray[np.int64]  # (N,) into `domains`
    xy: NDArray[np.float64]  # (N, 2), each axis centred; the longer axis has length 1
    features: int  # length of a feature vector
    explained_variance: float  # share of the variance in the principal components
    perplexity: float
    own_neighbour: float  # share of points whose nearest neighbour is of the same domain

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each domain."""
        counts = np.bincount(self.domain, minlength=len(self.domains)).tolist()
        return dict(zip(self.domains, counts, strict=True))


def feature_map(
    model: Universal,
    domains: Sequence[Domain],
    *,
    points: int = POINTS,
    split: str = "test",
    seed: int = 0,
) -> FeatureMap:
    """Return the map of a sample of these domains' images, each passed through its own slots.

    Args:
        points: Images of all domains together; each domain has the same share, or all its images.
    """
    per_domain = max(1, points // max(1, len(domains)))
    by_domain = []
    for domain in domains:
        part = split_for(domain, model.domains[domain.name], split)
        places = sample_places(part, domain.name, per_domain, seed)
        images = (part.batch(batch)[0] for batch in even_batches(places))
        by_domain.append(pooled_features(model, domain.name, images))
    domain_N = np.repeat(np.arange(len(domains)), [len(features) for features in by_domain])
    features = torch.cat(by_domain).double()
    if len(features) < 4:
        raise BadInput("expected at least 4 images for a map", got=len(features))
    reduced, kept = pca(features, COMPONENTS)
    nearest = torch.cdist(reduced, reduced).fill_diagonal_(math.inf).argmin(1).numpy()
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    xy = tsne(reduced, perplexity).numpy()
    xy = xy - (xy.max(0) + xy.min(0)) / 2
    xy = xy / max(float(np.ptp(xy, axis=0).max()), 1e-12)
    return FeatureMap(
        tuple(domain.name for domain in domains),
        domain_N,
        xy,
        features.shape[1],
        kept,
        perplexity,
        float((domain_N[nearest] == domain_N).mean()),
    )


def pooled_features(model: Universal, domain: str, batches: Iterable[Tensor]) -> Tensor:
    """Return the pooled features (N, C) of batches of a domain's images, on the CPU."""
    like = next(model.parameters())
    with eval_mode(model), torch.inference_mode(), model.trunk.switch.using(domain):
        features = [model.trunk(x.to(like.device, like.dtype))[0].float().cpu() for x in batches]
    return torch.cat(features)


def pca(x_NP: Tensor, components: int) -> tuple[Tensor, float]:
    """Return the first principal components (N, K), K ≤ components, and their variance share.

    The largest loading of each component is positive, so that maps are reproducible.
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
    """Return positions (N, 2) on the map."""
    p = affinities(x_NK.double(), perplexity).float()
    first, _ = pca(x_NK.double(), 2)
    if first.shape[1] < 2:
        first = torch.cat([first, torch.zeros_like(first)], 1)
    y = (first / first.std().clamp_min(1e-12) * 1e-4).float()
    rate = max(len(y) / EXAGGERATION / 4, 50.0)
    velocity, gain = torch.zeros_like(y), torch.ones_like(y)
    early = min(EARLY, steps // 2)
    with Track("computing the map of features", steps) as track:
        for step in range(steps):
            slope = gradient(p * EXAGGERATION if step < early else p, y)
            same = slope.sign() == velocity.sign()  # the velocity points against the last slopes
            gain = torch.where(same, gain * 0.8, gain + 0.2).clamp_min(0.01)
            velocity = (0.5 if step < early else 0.8) * velocity - rate * gain * slope
            y = y + velocity
            y = y - y.mean(0)
            track(1)
    return y.double()


def gradient(p_NN: Tensor, y_N2: Tensor) -> Tensor:
    """Return the gradient of KL(P‖Q) with respect to the positions.

    P is symmetric and its sum is 1, or more if exaggerated.
    """
    near = 1 / (1 + torch.cdist(y_N2, y_N2) ** 2)
    near.fill_diagonal_(0)
    pull = (p_NN - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y_N2 - pull @ y_N2)


def affinities(x_NK: Tensor, perplexity: float) -> Tensor:
    """Return P, symmetric with sum 1, where each point's Gaussian has the given perplexity."""
    squared = torch.cdist(x_NK, x_NK) ** 2
    squared = squared / squared.mean().clamp_min(1e-300)
    squared.fill_diagonal_(math.inf)
    low, high = (torch.full((len(x_NK), 1), v, dtype=x_NK.dtype) for v in (-30.0, 30.0))
    nearest = squared.min(1, keepdim=True).values  # subtracted, so that the largest exponent is 0
    for _ in range(60):  # bisection on log β: entropy decreases with β
        middle = (low + high) / 2
        weight = torch.exp(-(squared - nearest) * middle.exp())
        share = weight / weight.sum(1, keepdim=True)
        entropy = -torch.xlogy(share, share).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return (share + share.T) / (2 * len(x_NK))
