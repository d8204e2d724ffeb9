"""The loss of each kind of task, over the labelled images, numbers or pixels only.

| kind | loss | mean over |
|---|---|---|
| classify | cross-entropy, with label smoothing and class weights if set | labelled images |
| multilabel | binary cross-entropy | labelled (image, class) pairs |
| regress | ((ŷ − y)/s)², s the standard deviation of the training targets | labelled numbers |
| segment | cross-entropy | labelled pixels |
| depth | abs(ŷ − y) | labelled pixels |
| normals | 1 − ⟨n̂, n⟩ | labelled pixels |
| embed | supervised contrast (Khosla et al. 2020, L_out), τ = 0.1 | images with positives |

A batch without any label has the loss 0 and a gradient of 0. No value is read on the CPU, which
would synchronize with the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.task import NO_CLASS, NO_LABEL, NO_PIXEL, Task

Shares = Sequence[tuple[float, Mapping[str, Tensor]]]  # (share of the loss, targets by task)
Loss = Callable[[Tensor, Tensor], Tensor]  # (output, target) of a batch to a scalar
TEMPERATURE = 0.1  # of the supervised contrast


def classify(out_BC: Tensor, target_B: Tensor, smooth: float, weights_C: Tensor | None) -> Tensor:
    """Cross-entropy; with class weights, their weighted mean."""
    total = F.cross_entropy(
        out_BC,
        target_B,
        weights_C,
        ignore_index=NO_CLASS,
        reduction="sum",
        label_smoothing=smooth,
    )
    known = target_B != NO_CLASS
    if weights_C is None:
        return total / known.sum().clamp_min(1)
    mass = (weights_C[target_B.clamp_min(0)] * known).sum()
    return total / torch.where(mass > 0, mass, 1)


def multilabel(out_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Binary cross-entropy of every labelled (image, class) pair."""
    known = target_BC != NO_LABEL
    each = F.binary_cross_entropy_with_logits(
        out_BC, (target_BC == 1).to(out_BC.dtype), reduction="none"
    )
    return mean_of(each, known)


def regress(out_BN: Tensor, target_BN: Tensor, scale_N: Tensor) -> Tensor:
    """The squared difference, in standard deviations of the training targets."""
    known = ~target_BN.isnan()
    error_BN = (out_BN - torch.where(known, target_BN, 0)) / scale_N
    return mean_of(error_BN.square(), known)


def segment(out_BCHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Cross-entropy of every labelled pixel."""
    total = F.cross_entropy(out_BCHW, target_BHW.long(), ignore_index=NO_PIXEL, reduction="sum")
    return total / (target_BHW != NO_PIXEL).sum().clamp_min(1)


def depth(out_B1HW: Tensor, target_BHW: Tensor) -> Tensor:
    """The absolute difference in metres."""
    return mean_of((out_B1HW[:, 0] - target_BHW).abs(), target_BHW > 0)


def normals(out_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """One minus the cosine of the angle between unit vectors."""
    known = (target_B3HW != 0).any(1)
    return mean_of(1 - (out_B3HW * F.normalize(target_B3HW, dim=1)).sum(1), known)


def embed(out_BC: Tensor, target_B: Tensor) -> Tensor:
    """−1/|P(i)| Σ_{p ∈ P(i)} log exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ), the mean over images i
    with positives P(i): the other images of the batch with i's class."""
    itself = torch.eye(len(out_BC), dtype=torch.bool, device=out_BC.device)
    known = target_B != NO_CLASS
    similarity = out_BC @ out_BC.T / TEMPERATURE
    # the lowest number, not −∞: the softmax of a row without other images must be finite
    lowest = torch.finfo(similarity.dtype).min
    similarity = similarity.masked_fill(itself | ~known, lowest)
    positives = (target_B[:, None] == target_B) & ~itself & known
    log_p = torch.where(positives, similarity.log_softmax(1), 0)
    each = -log_p.sum(1) / positives.sum(1).clamp_min(1)
    return mean_of(each, positives.any(1))


def mean_of(each: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known entries; 0 if there are none."""
    return torch.where(known, each, 0).sum() / known.sum().clamp_min(1)


class Constant:
    """A tensor that is copied to each device once: a copy in each step would synchronize."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, other: Tensor) -> Tensor:
        """Return the constant on the device and in the type of another tensor."""
        key = (other.device, other.dtype)
        if key not in self._copies:
            self._copies[key] = self.tensor.to(other)
        return self._copies[key]


PLAIN: Mapping[str, Loss] = {  # kinds whose loss depends on outputs and targets alone
    "multilabel": multilabel,
    "segment": segment,
    "depth": depth,
    "normals": normals,
    "embed": embed,
}


def make_loss(
    task: Task, domain: Domain | None = None, smooth: float = 0.0, weighted: bool = False
) -> Loss:
    """Create the loss of one task.

    Args:
        domain: The domain whose training labels give class weights and scales, if any.
        smooth: The label smoothing.
        weighted: Whether classes are weighted.
    """
    if task.kind in PLAIN:
        return PLAIN[task.kind]
    if task.kind == "regress":
        std = target_stats(domain, task)[1] if domain is not None else torch.ones(task.outputs)
        scale = Constant(std)
        return lambda out, target: regress(out, target, scale.like(out))
    if not weighted or domain is None:
        return lambda out, target: classify(out, target, smooth, None)
    weights = Constant(class_weights(domain, task))
    return lambda out, target: classify(out, target, smooth, weights.like(out))


class Losses:
    """The losses of all units, the (domain, task) pairs with labels."""

    def __init__(self, domains: Sequence[Domain], smooth: float = 0.0, weighted: bool = False):
        self.of = {
            domain.name: {
                t.name: make_loss(t, domain, smooth, weighted)
                for t in (() if domain.unlabelled else domain.tasks)
            }
            for domain in domains
        }

    def __call__(
        self, domain: str, outputs: Mapping[str, Tensor], shares: Shares
    ) -> dict[str, Tensor]:
        """Return the loss of each task, summed over the shares; never in half precision."""
        losses: dict[str, Tensor] = {}
        for task, loss in self.of[domain].items():
            out = full_precision(outputs[task])
            losses[task] = torch.stack(
                [s * loss(out, targets[task]) for s, targets in shares]
            ).sum()
        return losses


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it has that type."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def class_weights(domain: Domain, task: Task) -> Tensor:
    """Return n/(C·n_c): all classes count the same, and the mean over images is 1."""
    labels = domain.train.label(task.name)
    counts = np.bincount(labels[labels != NO_CLASS], minlength=len(task.classes))
    return torch.from_numpy(counts.sum() / (len(counts) * np.maximum(counts, 1)))


def target_stats(domain: Domain, task: Task) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of a regress task's training targets, by output."""
    labels = domain.train.label(task.name).astype(np.float64).reshape(-1, task.outputs)
    mean, std = np.nanmean(labels, 0), np.nanstd(labels, 0)
    std[std < 1e-8] = 1.0  # a constant target needs no scale
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
