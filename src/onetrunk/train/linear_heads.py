"""Linear heads on features that stay as they are, each solved to its optimum in double precision.

| kind | minimised over W, b, with x the standardised features | by |
|---|---|---|
| classify | mean cross-entropy (weighted by class where asked) + λ/2·‖W‖² | L-BFGS |
| multilabel | mean over images of Σ_c binary cross-entropy + λ/2·‖W‖² | L-BFGS |
| regress | mean of ½(y − Wx − b)², y standardised, + λ/2·‖W‖² | its closed form |
| embed | supervised contrast of Wz/‖Wz‖ + λ/2·‖W − W₀‖², see `contrast` | Adam, large batches |

The bias is not shrunk. Standardised features make one λ mean about the same for every trunk; what
is handed out is for the features as they come.
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
USUAL, CONTRAST_USUAL = 1e-3, 1.0  # λ where no validation image has a label
GRADIENT = 1e-6  # L-BFGS is done when no entry of the gradient is larger
MOST = 500  # its iterations
CHUNK = 2**22  # numbers that are brought to double precision at once
KEEP = 2**26  # numbers that are kept so (512 MB); larger ones are read again in every pass
FLAT = 1e-5  # a feature that varies less than this share of its size counts as constant
STEPS, ROWS, MATES = 150, 512, 8  # of the contrast: steps, images in one, most of a class in one
RATE = 0.02  # its rate, in units of the entries of W₀
DIRECTIONS, FAINT = 512, 1e-4  # that it sees: at most so many, of at least this share of the first

F32 = NDArray[np.float32]
Loss = Callable[[Tensor, slice], Tensor]  # outputs of some rows, and which rows: their share


@dataclass(frozen=True)
class Solved:
    """The optimum for one λ; `gradient`: its largest entry where L-BFGS ended."""

    l2: float
    weight: Tensor  # (outputs, C), float64, for features as they come
    bias: Tensor  # (outputs,)
    gradient: float | None = None


class Design:
    """Some rows of a matrix of features (n, C) as solvers see them: (f − μ)/σ, a chunk at a time.

    A feature that is constant over these rows is 0 here, so that nothing is learned from it.
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
            self._kept = list(self._made())

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and their standardised features."""
        yield from self._made() if self._kept is None else self._kept

    def take(self, places: NDArray[np.int64]) -> Tensor:
        """The standardised features of these rows."""
        return (self._double(places) - self.mean) * self.scale

    def gram(self) -> Tensor:
        """XᵀX/n."""
        gram = torch.zeros(self.width, self.width, dtype=torch.float64, device=self.device)
        for _, rows in self.chunks():
            gram += rows.T @ rows / len(self)
        return gram

    def back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A map of standardised features as one of the features as they come."""
        plain = weight * self.scale
        return plain, bias - plain @ self.mean

    def _made(self) -> Iterator[tuple[slice, Tensor]]:
        for at, raw in self._raw():
            yield at, (raw - self.mean) * self.scale

    def _raw(self) -> Iterator[tuple[slice, Tensor]]:
        step = max(1, CHUNK // self.width)
        for start in range(0, len(self.rows), step):
            at = slice(start, min(start + step, len(self.rows)))
            yield at, self._double(np.arange(at.start, at.stop))

    def _double(self, places: NDArray[np.int64]) -> Tensor:
        found = np.ascontiguousarray(self.features[self.rows[places]])
        return torch.from_numpy(found).to(self.device).double()


def classify(
    x: Design, target_n: Tensor, weights_C: Tensor | None, classes: int, grid: Sequence[float]
) -> Iterator[Solved]:
    """Multinomial logistic regression, for each λ in turn, each from where the last one ended."""
    target = target_n.to(x.device)
    weights = None if weights_C is None else weights_C.to(x.device, torch.float64)
    size = float(len(target) if weights is None else weights[target].sum())

    def loss(out: Tensor, at: slice) -> Tensor:
        return F.cross_entropy(out, target[at], weights, reduction="sum") / size

    return logistic(x, loss, classes, grid)


def multilabel(x: Design, target_nC: Tensor, grid: Sequence[float]) -> Iterator[Solved]:
    """A binary logistic regression for each class, with one λ for all."""
    target = target_nC.to(x.device, torch.float64)

    def loss(out: Tensor, at: slice) -> Tensor:
        each = F.binary_cross_entropy_with_logits(out, target[at], reduction="sum")
        return each / len(target)

    return logistic(x, loss, target.shape[1], grid)


def logistic(x: Design, loss: Loss, outputs: int, grid: Sequence[float]) -> Iterator[Solved]:
    """min over W, b of the rows' losses + λ/2·‖W‖²: smooth and convex, so L-BFGS finds it.

    (Liu & Nocedal 1989, as torch has it, with strong Wolfe conditions.) The curvature is at most
    about XᵀX/4n + λ, so steps are taken along that matrix's eigenvectors, each in units of its
    root: features that go together, as a trunk's do, would cost hundreds of steps otherwise.
    """
    values, vectors = torch.linalg.eigh(x.gram())
    weight = torch.zeros(outputs, x.width, dtype=torch.float64, device=x.device)
    bias = torch.zeros(outputs, dtype=torch.float64, device=x.device, requires_grad=True)

    def run(given: Tensor, l2: float) -> float:
        """The objective; its gradient is added to what `given` and `bias` have."""
        with torch.no_grad():
            value = l2 / 2 * given.square().sum()
        given.grad = torch.zeros_like(given) if given.grad is None else given.grad
        given.grad += l2 * given.detach()
        for at, rows in x.chunks():
            part = loss(rows @ given.T + bias, at)
            part.backward()  # type: ignore[no-untyped-call]
            value = value + part.detach()
        return float(value)

    for l2 in grid:
        unit = (values.clamp_min(0) / 4 + l2).rsqrt()
        turned = ((weight @ vectors) / unit).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [turned, bias],
            max_iter=MOST,
            tolerance_grad=GRADIENT,
            tolerance_change=1e-15,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective(turned: Tensor = turned, unit: Tensor = unit, l2: float = l2) -> float:
            bias.grad = None
            given = ((turned.detach() * unit) @ vectors.T).requires_grad_()
            value = run(given, l2)
            assert given.grad is not None
            turned.grad = (given.grad @ vectors) * unit
            return value

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        weight = ((turned.detach() * unit) @ vectors.T).requires_grad_()
        bias.grad = None
        run(weight, l2)
        assert weight.grad is not None and bias.grad is not None
        gradient = torch.cat([weight.grad.flatten(), bias.grad]).abs().max()
        weight = weight.detach()
        yield Solved(l2, *x.back(weight, bias.detach()), float(gradient))


def ridge(x: Design, target_nN: Tensor, grid: Sequence[float]) -> Iterator[Solved]:
    """W = (XᵀX/n + λ)⁻¹ Xᵀy/n by one eigendecomposition for all λ; every target is known."""
    target = target_nN.to(x.device, torch.float64)
    mean = target.mean(0)
    cross = torch.zeros(x.width, target.shape[1], dtype=torch.float64, device=x.device)
    for at, rows in x.chunks():
        cross += rows.T @ (target[at] - mean) / len(x)
    values, vectors = torch.linalg.eigh(x.gram())
    turned = vectors.T @ cross
    for l2 in grid:
        weight = (vectors @ (turned / (values.clamp_min(0) + l2)[:, None])).T
        yield Solved(l2, *x.back(weight, mean))


def contrast(
    x: Design, target_n: Tensor, width: int, grid: Sequence[float], seed: int
) -> Iterator[Solved]:
    """A linear map by supervised contrast, for each λ from the same start; `x` is not centred.

    z are the images' coordinates along the mean's direction and the principal ones across it, each
    in units of its root mean square; W₀ leaves the mean out and gives the leading others their own
    size again: the map to principal components. An embedding's length means nothing, so λ does not
    hold it short but near Wz = W₀z. Batches are of all images where these are few, else of classes
    drawn by the seed, each with several images, so that everyone has a mate.
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
        whole = weight.detach() @ normalize
        yield Solved(l2, *x.back(whole, torch.zeros_like(whole[:, 0])))


def directions(x: Design) -> tuple[Tensor, Tensor]:
    """(R, C) the mean's direction, then the principal ones across it; the second moment along each.

    All images share the mean: a map that starts along it says that they look alike, and contrast
    does not get out of there. As one coordinate among others it is as good as a bias.
    """
    total = torch.zeros(x.width, dtype=torch.float64, device=x.device)
    for _, rows in x.chunks():
        total += rows.sum(0)
    mean, gram = F.normalize(total, dim=0), x.gram()
    across = torch.eye(x.width, dtype=torch.float64, device=x.device) - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(across @ gram @ across)
    sizes, basis = values.flip(0), vectors.flip(1).T
    seen = sizes > FAINT * sizes[0].clamp_min(1e-12)
    found = torch.cat([mean[None], basis[seen][:DIRECTIONS]])
    return found, torch.cat([(mean @ gram @ mean)[None], sizes[seen][:DIRECTIONS]])


def _drawn(groups: Sequence[NDArray[np.int64]], chance: np.random.Generator) -> NDArray[np.int64]:
    """Rows of one batch."""
    if sum(map(len, groups)) <= ROWS:
        return np.concatenate(groups)
    taken: list[NDArray[np.int64]] = []
    for number in chance.permutation(len(groups)):
        taken.append(chance.permutation(groups[number])[:MATES])
        if sum(map(len, taken)) >= ROWS:
            break
    return np.concatenate(taken)
