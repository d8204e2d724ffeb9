"""The initial slots of a new domain: copied from the trunk's own layers, or from another domain.

A trunk that was trained from scratch with norms of each domain has trained only those norms, and
not the layers that its banks replaced. So the slots of every domain and the trunk's own layers are
compared on some of the new images: class means of one half classify the other half (nearest by
cosine, see class_means.py), and the source with the fewest errors is chosen. It is then compared
with a variant whose running statistics are recomputed from the new images (Li et al. 2016). Without
classes, the slots of the first domain with a task of the same kind are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS
from onetrunk.errors import BadInput
from onetrunk.eval.feature_map import pooled_features
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.norms import keeps_statistics
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.train.fewshot.class_means import class_means_error

TRUNK = "trunk"  # the layers that banks replaced
IMAGES = 256  # on which the sources are compared
MAX_SOURCES = 16
STATISTICS_BATCHES = 30  # forward passes that recompute running statistics
BATCH = 64


@dataclass(frozen=True)
class InitialSlots:
    """Where the slots of a new domain are copied from.

    Args:
        source: A domain of the model, or "trunk".
        new_statistics: Whether running statistics are recomputed from the new images.
        errors: The error of class means in percent, by source; empty if none was compared.
    """

    source: str
    new_statistics: bool
    errors: Mapping[str, float]

    @property
    def description(self) -> str:
        """The choice and its reason, in one line."""
        source = "trunk's own layers" if self.source == TRUNK else f"slots of {self.source}"
        line = f"starts from the {source}"
        if self.new_statistics:
            line += ", with statistics of the new images"
        if self.errors:
            errors = ", ".join(f"{name} {error:.1f} %" for name, error in self.errors.items())
            line += f" (error of class means: {errors})"
        return line

    def apply(self, scratch: Universal, model: Universal, domain: Domain, seed: int) -> None:
        """Set the slots of a new scratch model to this choice."""
        copy_slots(scratch, domain.name, model, self.source, copy_of_slots(scratch, domain.name))
        if self.new_statistics:
            recompute_statistics(scratch, domain, seed)


def choose_initial_slots(
    scratch: Universal, model: Universal, domain: Domain, start: str, seed: int
) -> InitialSlots:
    """Choose the initial slots of a scratch model's domain, and set them.

    Args:
        start: "auto", "trunk" or a domain of the model.
    """
    with Track(f"choosing the initial slots of {domain.name}: slots tried", None) as track:
        return _choose(scratch, model, domain, start, seed, track)


def _choose(
    scratch: Universal, model: Universal, domain: Domain, start: str, seed: int, track: Track
) -> InitialSlots:
    check_start(model, domain.name, start)
    name, names = domain.name, [other for other in model.domains if other != domain.name]
    fresh = copy_of_slots(scratch, name)
    if not fresh:
        return InitialSlots(TRUNK, False, {})

    def copy_from(source: str) -> None:
        copy_slots(scratch, name, model, source, fresh)

    if start != "auto":
        copy_from(start)
        return InitialSlots(start, False, {})
    task = next((task for task in domain.tasks if task.kind in ("classify", "embed")), None)
    if task is None:
        kinds = {task.kind for task in domain.tasks}
        alike = [n for n in names if kinds & {task.kind for task in model.domains[n].tasks}]
        source = next(iter([*alike, *names]), TRUNK)
        copy_from(source)
        return InitialSlots(source, False, {})
    images, labels = _labelled_images(domain, task.name, seed)
    half = len(labels) // 2
    if not torch.isin(labels[half:], labels[:half]).any():
        half = 0  # one image per class: no class is in both halves

    def error() -> float:
        features = pooled_features(scratch, name, images)
        fitted, held_out = (features[:half], labels[:half]), (features[half:], labels[half:])
        return class_means_error(fitted, held_out, len(task.classes))

    errors: dict[str, float] = {}
    if half:
        for source in [TRUNK, *_drawn(names, seed)]:
            copy_from(source)
            errors[source] = error()
            track()
    # in a tie the first domain, because its slots are trained
    best = min([*_drawn(names, seed), TRUNK], key=lambda source: errors.get(source, 0.0))
    copy_from(best)
    if not half or not recompute_statistics(scratch, domain, seed):
        return InitialSlots(best, False, errors)
    recomputed = f"{best}, new statistics"
    errors[recomputed] = error()
    better = errors[recomputed] < errors[best]
    if not better:
        copy_from(best)
    return InitialSlots(best, better, errors)


def check_start(model: Universal, name: str, start: str) -> None:
    """Check that `start` is "auto", "trunk" or another domain of the model."""
    available = ["auto", TRUNK, *(other for other in model.domains if other != name)]
    if start not in available:
        raise BadInput("unknown domain", place="add.start", got=start, available=available)


def slots_of(model: Universal, name: str) -> dict[str, Tensor]:
    """Return a domain's tensors, except for its heads."""
    return {key: value for key, value in model.own(name).items() if key.startswith("slots/")}


def copy_of_slots(model: Universal, name: str) -> dict[str, Tensor]:
    """Return copies of a domain's tensors, except for its heads."""
    return {key: value.detach().clone() for key, value in slots_of(model, name).items()}


@torch.no_grad()
def set_slots(model: Universal, name: str, slots: Mapping[str, Tensor]) -> None:
    """Set a domain's tensors, except for its heads."""
    for key, tensor in slots_of(model, name).items():
        tensor.copy_(slots[key])


@torch.no_grad()
def copy_slots(
    scratch: Universal, name: str, model: Universal, source: str, fresh: Mapping[str, Tensor]
) -> None:
    """Copy slots of the model's domain `source` where they fit, and `fresh` elsewhere."""
    slots = {} if source == TRUNK else slots_of(model, source)
    for key, tensor in slots_of(scratch, name).items():
        slot = slots.get(key)
        tensor.copy_(slot if slot is not None and slot.shape == tensor.shape else fresh[key])


def _drawn(names: list[str], seed: int) -> list[str]:
    """Return the domains that are compared: all, or a random choice of them."""
    if len(names) < MAX_SOURCES:
        return names
    drawn = permutation(seed_of(seed, "start"), 0, len(names))[: MAX_SOURCES - 1]
    return [names[i] for i in sorted(drawn)]


def _labelled_images(domain: Domain, task: str, seed: int) -> tuple[list[Tensor], Tensor]:
    """Return batches of labelled training and validation images in random order, and labels."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for split in (domain.train, domain.val):
        labelled = np.flatnonzero(split.label(task) != NO_CLASS)
        order = permutation(seed_of(seed, domain.name, split.name, "probe"), 0, len(labelled))
        share = IMAGES * len(split) // max(1, len(domain.train) + len(domain.val))
        drawn = labelled[order[: max(1, share)]]
        for places in np.array_split(drawn, max(1, -(-share // BATCH))):
            if len(places):
                pixels, targets = split.batch(places)
                images.append(pixels)
                labels.append(targets[task])
    targets_N = torch.cat(labels)
    order_N = torch.from_numpy(permutation(seed_of(seed, "halves"), 0, len(targets_N)))
    return list(torch.split(torch.cat(images)[order_N], BATCH)), targets_N[order_N]


def recompute_statistics(model: Universal, domain: Domain, seed: int) -> bool:
    """Update a domain's running statistics on its training images; False if it has none."""
    modules = [module for module in _slot_modules(model, domain.name) if keeps_statistics(module)]
    if not modules or len(domain.train) < 2:
        return False
    like = next(model.parameters())
    with eval_mode(model), torch.no_grad(), model.trunk.switch.using(domain.name):
        for module in modules:
            module.train()
        for places in _statistics_batches(domain.train, seed):
            x, _ = domain.train.batch(places)
            model.trunk(x.to(device=like.device, dtype=like.dtype))
    return True


def _slot_modules(model: Universal, name: str) -> list[nn.Module]:
    slots = [bank.slots.get(name) for bank in model.trunk.banks().values()]
    return [module for slot in slots if slot is not None for module in slot.modules()]


def _statistics_batches(split: Split, seed: int) -> list[NDArray[np.int64]]:
    """Return the images of each forward pass, shuffled in every epoch."""
    size = min(BATCH, len(split))
    batches: list[NDArray[np.int64]] = []
    epoch = 0
    while len(batches) < STATISTICS_BATCHES:
        order = permutation(seed_of(seed, "settle"), epoch, len(split))
        batches += [order[i : i + size] for i in range(0, len(split) - size + 1, size)]
        epoch += 1
    return batches[:STATISTICS_BATCHES]
