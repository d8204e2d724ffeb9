"""Similarity of the domains' features by depth: linear CKA on the same images.

S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of neural network representations
revisited", ICML 2019 (arXiv:1905.00414). With features X (N × P) and Y (N × Q) of the same N
images, columns centred:

    CKA(X, Y) = ‖YᵀX‖²_F / (‖XᵀX‖_F · ‖YᵀY‖_F) = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)),

K = XXᵀ and L = YYᵀ. It is 1 for features that are equal up to turning and scaling. With fewer
images than features this estimate lies far above 0 for unrelated features too, so the report takes
the unbiased estimate of HSIC (L. Song et al., JMLR 2012; for CKA: T. Nguyen, M. Raghu,
S. Kornblith, ICLR 2021), with the diagonals of K and L set to 0:

    HSIC₁(K, L) = [ tr(KL) + 1ᵀK1·1ᵀL1 / ((n−1)(n−2)) − 2/(n−2)·1ᵀKL1 ] / (n(n−3)).

Two domains are compared on the same images: some of every domain, normalized as their own domain
says, run through the one domain's slots and through the other's.
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
from onetrunk.eval.features import FEWEST, by_depth, depth_names, draw, evaluating
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal

PROBES = 320  # images in all, shared out over the domains
UNBIASED = 4  # images at least


@dataclass(frozen=True)
class Similarity:
    """CKA of each pair of domains at each depth."""

    domains: tuple[str, ...]
    depths: tuple[str, ...]  # shallow first
    cka: NDArray[np.float64]  # (depths, domains, domains)
    images: int  # that every domain's slots saw

    def mean(self) -> list[float]:
        """Over the pairs of two domains, at each depth."""
        pairs = ~np.eye(len(self.domains), dtype=bool)
        return [float(np.nanmean(matrix[pairs])) for matrix in self.cka]


def linear_cka(x_NP: Tensor, y_NQ: Tensor, unbiased: bool = False) -> float:
    """CKA with linear kernels; NaN where one of the two does not vary at all."""
    if x_NP.shape[0] != y_NQ.shape[0]:
        raise BadInput("CKA compares features of the same images", got=(len(x_NP), len(y_NQ)))
    if unbiased and x_NP.shape[0] < UNBIASED:
        raise BadInput(f"unbiased CKA needs at least {UNBIASED} images", got=len(x_NP))
    one, other = _gram(x_NP), _gram(y_NQ)
    hsic = _hsic_unbiased if unbiased else _hsic
    size = hsic(one, one), hsic(other, other)
    if min(size) <= 0:
        return math.nan
    return hsic(one, other) / math.sqrt(size[0] * size[1])


def similarity(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    *,
    images: int = PROBES,
    split: str = "val",
    seed: int = 0,
) -> Similarity:
    """CKA between every two domains; `models`: each domain's network, often the same one."""
    if len(domains) < 2:
        raise BadInput("similarity is between at least two domains", got=len(domains))
    each = max(FEWEST, images // len(domains))
    probes = []
    for domain in domains:
        part = split_for(domain, models[domain.name].domains[domain.name], split)
        probes.append(part.batch(draw(part, domain.name, each, seed))[0])
    names = [domain.name for domain in domains]
    depths = depth_names(models[names[0]])
    found: list[list[Tensor]] = []  # by domain, by depth
    for name in names:
        if depth_names(models[name]) != depths:
            raise BadInput(f"{name}: its network has other depths", got=depth_names(models[name]))
        with evaluating(models[name]):
            passes = [by_depth(models[name], name, probe) for probe in probes]
        found.append([torch.cat(depth) for depth in zip(*passes, strict=True)])
    cka = np.ones((len(depths), len(names), len(names)))
    for depth in range(len(depths)):
        for i in range(len(names)):
            for j in range(i):
                value = linear_cka(found[i][depth], found[j][depth], unbiased=True)
                cka[depth, i, j] = cka[depth, j, i] = value
    return Similarity(tuple(names), depths, cka, sum(len(probe) for probe in probes))


def _gram(x_NP: Tensor) -> Tensor:
    centred = x_NP.double() - x_NP.double().mean(0)
    scale = centred.abs().max()
    if not scale > 1e-12 * x_NP.double().abs().max():  # equal but for rounding
        return torch.zeros(len(x_NP), len(x_NP), dtype=torch.float64)
    centred = centred / scale  # CKA is the same, and nothing over- or underflows
    return centred @ centred.T


def _hsic(k_NN: Tensor, l_NN: Tensor) -> float:
    return float((k_NN * l_NN).sum())  # of centred features: tr(KHLH) = tr(KL)


def _hsic_unbiased(k_NN: Tensor, l_NN: Tensor) -> float:
    n = k_NN.shape[0]
    one, other = (m - torch.diag(torch.diagonal(m)) for m in (k_NN, l_NN))
    found = (
        (one * other).sum()
        + one.sum() * other.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one.sum(0) * other.sum(0)).sum()
    )
    return float(found / (n * (n - 3)))
