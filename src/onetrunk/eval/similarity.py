"""Similarity of the domains' features by depth: linear CKA on the same images.

S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of neural network representations
revisited", ICML 2019 (arXiv:1905.00414). With features X (N × P) and Y (N × Q) of the same N
images, columns centred:

    CKA(X, Y) = ‖YᵀX‖²_F / (‖XᵀX‖_F · ‖YᵀY‖_F) = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)),

K = XXᵀ and L = YYᵀ. It is 1 for features that are equal up to rotation and scale. With fewer images
than features this estimate is far above 0 for unrelated features too, so the report uses the
unbiased estimate of HSIC (L. Song et al., JMLR 2012; for CKA: T. Nguyen, M. Raghu, S. Kornblith,
ICLR 2021), with the diagonals of K and L set to 0:

    HSIC₁(K, L) = [ tr(KL) + 1ᵀK1·1ᵀL1 / ((n−1)(n−2)) − 2/(n−2)·1ᵀKL1 ] / (n(n−3)).

Two domains are compared on the same images: a sample of every domain, normalized as that domain
requires, is passed through the slots of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.eval.model_split import sample_places, split_for
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.universal import Universal

IMAGES = 320  # of all domains together
MIN_PER_DOMAIN = 8  # images, so that every norm can normalize a batch of them
MIN_UNBIASED = 4  # images


@dataclass(frozen=True)
class Similarity:
    """CKA of each pair of domains at each depth of the trunk."""

    domains: tuple[str, ...]
    depths: tuple[str, ...]  # shallow first
    cka: NDArray[np.float64]  # (depths, domains, domains)
    images: int  # number of images

    def mean(self) -> list[float]:
        """Return the mean over pairs of different domains, at each depth."""
        pairs = ~np.eye(len(self.domains), dtype=bool)
        return [float(np.nanmean(matrix[pairs])) for matrix in self.cka]


def linear_cka(x_NP: Tensor, y_NQ: Tensor, unbiased: bool = False) -> float:
    """Return CKA with linear kernels; NaN where one of the two is constant."""
    if x_NP.shape[0] != y_NQ.shape[0]:
        raise BadInput("CKA needs features of the same images", got=(len(x_NP), len(y_NQ)))
    if unbiased and x_NP.shape[0] < MIN_UNBIASED:
        raise BadInput(f"unbiased CKA needs at least {MIN_UNBIASED} images", got=len(x_NP))
    k, m = _gram(x_NP), _gram(y_NQ)
    hsic = _hsic_unbiased if unbiased else _hsic
    norms = hsic(k, k), hsic(m, m)
    if min(norms) <= 0:
        return math.nan
    return hsic(k, m) / math.sqrt(norms[0] * norms[1])


def similarity(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    *,
    images: int = IMAGES,
    split: str = "val",
    seed: int = 0,
) -> Similarity:
    """Return CKA between every two domains.

    Args:
        models: Each domain's network; they may be one.
        images: Images of all domains together.
    """
    if len(domains) < 2:
        raise BadInput("similarity needs at least two domains", got=len(domains))
    per_domain = max(MIN_PER_DOMAIN, images // len(domains))
    samples = []
    for domain in domains:
        part = split_for(domain, models[domain.name].domains[domain.name], split)
        samples.append(part.batch(sample_places(part, domain.name, per_domain, seed))[0])
    names = [domain.name for domain in domains]
    depths = depth_names(models[names[0]])
    features: list[list[Tensor]] = []  # by domain, by depth
    for name in names:
        model = models[name]
        if depth_names(model) != depths:
            raise BadInput(
                f"{name}: its network and the network of {names[0]} have different depths",
                got=depth_names(model),
            )
        with eval_mode(model):
            passes = [features_by_depth(model, name, sample) for sample in samples]
        features.append([torch.cat(depth) for depth in zip(*passes, strict=True)])
    cka = np.ones((len(depths), len(names), len(names)))
    for depth in range(len(depths)):
        for i in range(len(names)):
            for j in range(i):
                value = linear_cka(features[i][depth], features[j][depth], unbiased=True)
                cka[depth, i, j] = cka[depth, j, i] = value
    return Similarity(tuple(names), depths, cka, sum(len(sample) for sample in samples))


def depth_names(model: Universal) -> tuple[str, ...]:
    """Return the names of the trunk's maps, shallow first, and "pooled" for the heads' input."""
    trunk = model.trunk
    if len(trunk.stages) == len(trunk.reductions):
        return (*(f"stage {s}" if s.isdecimal() else s for s in trunk.stages), "pooled")
    return (*(f"level {i + 1}" for i in range(len(trunk.reductions))), "pooled")


def features_by_depth(model: Universal, domain: str, images_BCHW: Tensor) -> list[Tensor]:
    """Return features (B, C) at each depth: each map's mean over pixels, then the pooled ones."""
    if domain not in model.domains:
        raise BadInput("unknown domain", got=domain, available=model.domains)
    trunk = model.trunk
    like = next(model.parameters())
    with torch.inference_mode(), trunk.switch.using(domain):
        x = images_BCHW.to(like.device, like.dtype)
        pooled, maps = trunk(x, True, range(len(trunk.reductions)))
    return [*(m.mean((2, 3)).float().cpu() for m in maps), pooled.float().cpu()]


def _gram(x_NP: Tensor) -> Tensor:
    centred = x_NP.double() - x_NP.double().mean(0)
    scale = centred.abs().max()
    if not scale > 1e-12 * x_NP.double().abs().max():  # constant up to rounding
        return torch.zeros(len(x_NP), len(x_NP), dtype=torch.float64)
    centred = centred / scale  # CKA does not change, and nothing over- or underflows
    return centred @ centred.T


def _hsic(k_NN: Tensor, l_NN: Tensor) -> float:
    return float((k_NN * l_NN).sum())  # of centred features: tr(KHLH) = tr(KL)


def _hsic_unbiased(k_NN: Tensor, l_NN: Tensor) -> float:
    n = k_NN.shape[0]
    one, other = (m - torch.diag(torch.diagonal(m)) for m in (k_NN, l_NN))
    hsic = (
        (one * other).sum()
        + one.sum() * other.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one.sum(0) * other.sum(0)).sum()
    )
    return float(hsic / (n * (n - 3)))
