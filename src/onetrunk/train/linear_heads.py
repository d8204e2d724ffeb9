"""Linear heads on fixed features, each solved to its optimum in double precision.

| kind | minimized over W, b, with x the standardized features | by |
|---|---|---|
| classify | mean cross-entropy (with class weights, if set) + λ/2·‖W‖² | L-BFGS |
| multilabel | mean over images of Σ_c binary cross-entropy + λ/2·‖W‖² | L-BFGS |
| regress | mean of ½(y − Wx − b)², y standardized, + λ/2·‖W‖² | closed form |
| embed | supervised contrast of Wz/‖Wz‖ + λ/2·‖W − W₀‖², see `contrast` | Adam, large batches |

The bias is not regularized. With standardized features one λ has about the same effect for every
trunk; solutions are converted back to the raw features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.seeded import seed_of
from onetrunk.train import losses

GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # λ, strongest first
CONTRAST_GRID = (1e2, 1e1, 1.0, 1e-1, 1e-2)
DEFAULT, CONTRAST_DEFAULT = 1e-3, 1.0  # λ where no validation image has a label
TOLERANCE = 1e-6  # L-BFGS stops when no entry of the gradient is larger
MAX_ITERATIONS = 500  # of L-BFGS
CHUNK = 2**22  # numbers that are converted to double precision at a time
KEEP = 2**26  # numbers kept in double precision (512 MB); more are converted in every pass
FLAT = 1e-5  # a feature whose std is a smaller share of its RMS than this counts as constant
# of the supervised contrast
STEPS, ROWS, PER_CLASS = (
    150,
    512,
    8,
)  # steps; images in a batch; images of a class in a batch, at most
RATE = 0.02  # learning rate, in units of the entries of W₀
DIRECTIONS = 512  # principal directions, at most
SMALL = 1e-4  # directions with a smaller variance, relative to the first, are dropped

F32 = NDArray[np.float32]
Loss = Callable[[Tensor, slice], Tensor]  # (outputs of rows, the slice of these rows) to their loss


@dataclass(frozen=True)
class Solution:
    """The optimum for one λ."""

    l2: float
    weight: Tensor  # (outputs, C), float64, for raw features
    bias: Tensor  # (outputs,)
    gradient: float | None = None  # its largest entry where L-BFGS stopped


class Design:
    """The design matrix of a solver: standardized rows (f − μ)/σ of features (n, C), in chunks.

    A feature that is constant over these rows is 0 here, so its weight stays 0.

    Args:
        features: The raw features.
        rows: The rows of them that are used.
        centre: Whether to subtract μ.
    """

    def __init__(
        self, features: F32, rows: NDArray[np.int64], device: torch.device, centre: bool = True
    ) -> None:
        self.features, self.rows, self.device = features, rows, device
        self.width = features.shape[1]
        zero = torch.zeros(self.width, dtype=torch.float64, device=device)
        total, squares = zero.clone(), zero.clone()
        for _, raw in self._raw():
            total += raw.sum(0)
        mean = total / len(rows)
        for _, raw in self._raw():
            squares += (raw - mean).square().sum(0)
        std = (squares / len(rows)).sqrt()
        varies = std > FLAT * (mean.square() + std.square()).sqrt()
        self.scale = torch.where(varies, 1 / std.clamp_min(1e-300), 0)
        self.mean = mean if centre else zero
        self._kept: list[tuple[slice, Tensor]] | None = None
        if len(rows) * self.width <= KEEP:
            self._kept = list(self._standardized())

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the rows, and their standardized features."""
        yield from self._standardized() if self._kept is None else self._kept

    def take(self, places: NDArray[np.int64]) -> Tensor:
        """Return the standardized features of these rows."""
        return (self._double(places) - self.mean) * self.scale

    def gram(self) -> Tensor:
        """Return XᵀX/n."""
        gram = torch.zeros(self.width, self.width, dtype=torch.float64, device=self.device)
        for _, rows in self.chunks():
            gram += rows.T @ rows / len(self)
        return gram

    def principal(self) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and eigenvectors (C, K) of XᵀX/n that span the rows.

        With fewer rows than features, K is the number of rows: the optimum with an L2 penalty has
        no part outside their span, and a singular value decomposition of X is far cheaper.
        """
        if self._kept is None or len(self) >= self.width:
            values, vectors = torch.linalg.eigh(self.gram())
            return values, vectors
        rows = torch.cat([rows for _, rows in self._kept])
        _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
        return singular.square() / len(self), vectors.T

    def unscaled(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Convert a linear map of standardized features into one of raw features."""
        plain = weight * self.scale
        return plain, bias - plain @ self.mean

    def _standardized(self) -> Iterator[tuple[slice, Tensor]]:
        for at, raw in self._raw():
            yield at, (raw - self.mean) * self.scale

    def _raw(self) -> Iterator[tuple[slice, Tensor]]:
        step = max(1, CHUNK // self.width)
        for start in range(0, len(self.rows), step):
            at = slice(start, min(start + step, len(self.rows)))
            yield at, self._double(np.arange(at.start, at.stop))

    def _double(self, places: NDArray[np.int64]) -> Tensor:
        raw = np.ascontiguousarray(self.features[self.rows[places]])
        return torch.from_numpy(raw).to(self.device).double()


def classify(
    x: Design, target_n: Tensor, weights_C: Tensor | None, classes: int, grid: Sequence[float]
) -> Iterator[Solution]:
    """Multinomial logistic regression for each λ, each warm-started from the last."""
    target = target_n.to(x.device)
    weights = None if weights_C is None else weights_C.to(x.device, torch.float64)
    size = float(len(target) if weights is None else weights[target].sum())

    def loss(out: Tensor, at: slice) -> Tensor:
        return F.cross_entropy(out, target[at], weights, reduction="sum") / size

    return logistic(x, loss, classes, grid)


def multilabel(x: Design, target_nC: Tensor, grid: Sequence[float]) -> Iterator[Solution]:
    """Binary logistic regression of each class, with one λ for all."""
    target = target_nC.to(x.device, torch.float64)

    def loss(out: Tensor, at: slice) -> Tensor:
        each = F.binary_cross_entropy_with_logits(out, target[at], reduction="sum")
        return each / len(target)

    return logistic(x, loss, target.shape[1], grid)


def logistic(x: Design, loss: Loss, outputs: int, grid: Sequence[float]) -> Iterator[Solution]:
    """Minimize the rows' losses + λ/2·‖W‖² over W and b: smooth and convex, so by L-BFGS.

    (Liu & Nocedal 1989; torch's implementation, with strong Wolfe conditions.) The Hessian is at
    most about XᵀX/4n + λ, which serves as preconditioner: variables are coordinates along its
    eigenvectors, scaled by the inverse roots of its eigenvalues. Without it, the correlated
    features of a trunk would cost hundreds of steps.
    """
    values, vectors = x.principal()
    weight = torch.zeros(outputs, x.width, dtype=torch.float64, device=x.device)
    bias = torch.zeros(outputs, dtype=torch.float64, device=x.device, requires_grad=True)

    def backward(weight: Tensor, l2: float) -> float:
        """Return the objective; add its gradient to `.grad` of the weight and the bias."""
        with torch.no_grad():
            value = l2 / 2 * weight.square().sum()
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad += l2 * weight.detach()
        for at, rows in x.chunks():
            part = loss(rows @ weight.T + bias, at)
            part.backward()  # type: ignore[no-untyped-call]
            value = value + part.detach()
        return float(value)

    for l2 in grid:
        unit = (values.clamp_min(0) / 4 + l2).rsqrt()
        rotated = ((weight @ vectors) / unit).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [rotated, bias],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=TOLERANCE,
            tolerance_change=1e-15,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective(rotated: Tensor = rotated, unit: Tensor = unit, l2: float = l2) -> float:
            bias.grad = None
            current = ((rotated.detach() * unit) @ vectors.T).requires_grad_()
            value = backward(current, l2)
            rotated.grad = (_grad(current) @ vectors) * unit
            return value

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        weight = ((rotated.detach() * unit) @ vectors.T).requires_grad_()
        bias.grad = None
        backward(weight, l2)
        gradient = torch.cat([_grad(weight).flatten(), _grad(bias)]).abs().max()
        weight = weight.detach()
        yield Solution(l2, *x.unscaled(weight, bias.detach()), float(gradient))


def _grad(tensor: Tensor) -> Tensor:
    if tensor.grad is None:
        raise RuntimeError("backward has not been called")
    return tensor.grad


def ridge(x: Design, target_nN: Tensor, grid: Sequence[float]) -> Iterator[Solution]:
    """W = (XᵀX/n + λ)⁻¹ Xᵀy/n by one eigendecomposition for all λ; no target may be missing."""
    target = target_nN.to(x.device, torch.float64)
    mean = target.mean(0)
    cross = torch.zeros(x.width, target.shape[1], dtype=torch.float64, device=x.device)
    for at, rows in x.chunks():
        cross += rows.T @ (target[at] - mean) / len(x)
    values, vectors = x.principal()
    rotated = vectors.T @ cross
    for l2 in grid:
        weight = (vectors @ (rotated / (values.clamp_min(0) + l2)[:, None])).T
        yield Solution(l2, *x.unscaled(weight, mean))


def contrast(
    x: Design, target_n: Tensor, width: int, grid: Sequence[float], seed: int
) -> Iterator[Solution]:
    """Learn a linear map by supervised contrast, for each λ from the same start.

    z are the images' coordinates along the mean's direction and the principal directions orthogonal
    to it, each divided by its root mean square. W₀ drops the mean and restores the scale of the
    leading others: the map to principal components. The length of an embedding has no meaning, so λ
    does not pull W to 0 but to W₀. Batches contain all images if these are few, else random
    classes with several images each, so that every image has another one of its class.

    `x` must not be centred.
    """
    basis, sizes = directions(x)
    normalize = basis / sizes[:, None].clamp_min(1e-12).sqrt()
    start = torch.zeros(width, len(basis), dtype=torch.float64, device=x.device)
    start[:, 1:].diagonal().copy_((sizes[1:] / sizes[1:].sum()).sqrt()[:width])
    target = target_n.numpy()
    groups = [np.flatnonzero(target == c) for c in np.unique(target)]
    groups = [group for group in groups if len(group) > 1]
    for l2 in grid:
        chance = np.random.default_rng(seed_of(seed, "contrast"))
        weight = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([weight], lr=RATE / math.sqrt(len(basis)))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS if groups else 0):
            places = _drawn(groups, chance)
            out = F.normalize(x.take(places) @ normalize.T @ weight.T, dim=1)
            loss = losses.embed(out, target_n[places].to(x.device))
            total = loss + l2 / 2 * (weight - start).square().sum()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        total_map = weight.detach() @ normalize
        yield Solution(l2, *x.unscaled(total_map, torch.zeros_like(total_map[:, 0])))


def directions(x: Design) -> tuple[Tensor, Tensor]:
    """Return (R, C) the mean's direction, then principal directions; (R,) their second moments.

    If the map started along the mean, which all features have in common, all embeddings would be
    nearly equal and could not be separated. As one coordinate among others, the mean is a bias.
    """
    total = torch.zeros(x.width, dtype=torch.float64, device=x.device)
    for _, rows in x.chunks():
        total += rows.sum(0)
    mean, gram = F.normalize(total, dim=0), x.gram()
    across = torch.eye(x.width, dtype=torch.float64, device=x.device) - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(across @ gram @ across)
    sizes, basis = values.flip(0), vectors.flip(1).T
    used = sizes > SMALL * sizes[0].clamp_min(1e-12)
    rows = torch.cat([mean[None], basis[used][:DIRECTIONS]])
    return rows, torch.cat([(mean @ gram @ mean)[None], sizes[used][:DIRECTIONS]])


def _drawn(groups: Sequence[NDArray[np.int64]], chance: np.random.Generator) -> NDArray[np.int64]:
    """Draw the rows of one batch."""
    if sum(map(len, groups)) <= ROWS:
        return np.concatenate(groups)
    taken: list[NDArray[np.int64]] = []
    for number in chance.permutation(len(groups)):
        taken.append(chance.permutation(groups[number])[:PER_CLASS])
        if sum(map(len, taken)) >= ROWS:
            break
    return np.concatenate(taken)
