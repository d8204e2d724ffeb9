"""Where a new domain's slots start: as the trunk's own layers, or as those of a domain that fits.

A trunk that learned from scratch with norms of each domain's own has only theirs: the layers that
banks replaced never learned. So every domain's slots are tried, and the trunk's own: class means of
one half of some of the new images name the other half (nearest by cosine, means.py), and the start
with the fewest errors is taken; then the same with running statistics of the new images (Li et al.
2016), if that is better still. Without classes: the slots of the first domain with such a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS
from onetrunk.errors import BadInput
from onetrunk.eval.evaluate import evaluating
from onetrunk.nn.norm_banks import Stats
from onetrunk.nn.universal import Universal
from onetrunk.train.fewshot.class_means import means_error

TRUNK = "trunk"  # the layers that banks replaced
PROBED = 256  # images that a start is tried on
TRIED = 16  # starts at most
SETTLE, BATCH = 30, 64  # passes that statistics take, and their images


@dataclass(frozen=True)
class Start:
    """Whose slots, whether their statistics are of the new images, and what each start's error was."""

    of: str
    settled: bool
    errors: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a file keeps it."""
        return {"of": self.of, "settled": self.settled, "errors": dict(self.errors)}

    @property
    def said(self) -> str:
        """One line for people."""
        whose = "the trunk's own layers" if self.of == TRUNK else f"the slots of {self.of}"
        more = ", with statistics of the new images" if self.settled else ""
        told = ", ".join(f"{name} {error:.1f} %" for name, error in self.errors.items())
        return f"starts from {whose}{more}" + (f" (class means: {told})" if told else "")


def choose_start(
    worker: Universal, model: Universal, domain: Domain, asked: str, seed: int
) -> Start:
    """Find the start, and leave the worker's slots so."""
    check_start(model, domain.name, asked)
    name, names = domain.name, [other for other in model.domains if other != domain.name]
    fresh = {key: value.detach().clone() for key, value in slots_of(worker, name).items()}
    if not fresh:
        return Start(TRUNK, False, {})
    if asked != "auto":
        put(worker, name, model, asked, fresh)
        return Start(asked, False, {})
    task = next((task for task in domain.tasks if task.kind in ("classify", "embed")), None)
    if task is None:
        kinds = {task.kind for task in domain.tasks}
        alike = [n for n in names if kinds & {task.kind for task in model.domains[n].tasks}]
        of = next(iter([*alike, *names]), TRUNK)
        put(worker, name, model, of, fresh)
        return Start(of, False, {})
    images, labels = probe(domain, task.name, seed)
    half = len(labels) // 2
    if not torch.isin(labels[half:], labels[:half]).any():
        half = 0  # a class an image: none can name another

    def error() -> float:
        found = features(worker, name, images)
        known, rest = (found[:half], labels[:half]), (found[half:], labels[half:])
        return means_error(known, rest, len(task.classes))

    errors: dict[str, float] = {}
    if half:
        for each in [TRUNK, *some(names, seed)]:
            put(worker, name, model, each, fresh)
            errors[each] = error()
    # of equals the first domain: its slots have learned something
    order = [*some(names, seed), TRUNK]
    best = min(order, key=lambda each: errors.get(each, 0.0))
    put(worker, name, model, best, fresh)
    if not half or not settle(worker, domain, seed):
        return Start(best, False, errors)
    errors[f"{best}, settled"] = error()
    settled = errors[f"{best}, settled"] < errors[best]
    if not settled:
        put(worker, name, model, best, fresh)
    return Start(best, settled, errors)


def check_start(model: Universal, name: str, asked: str) -> None:
    """Only what is there is started from."""
    known = ["auto", TRUNK, *(other for other in model.domains if other != name)]
    if asked not in known:
        raise BadInput("unknown domain", place="add.start", got=asked, available=known)


def again(
    worker: Universal, model: Universal, domain: Domain, start: Mapping[str, Any], seed: int
) -> None:
    """Leave another worker's slots as a start that was found has them."""
    fresh = {key: value.detach().clone() for key, value in slots_of(worker, domain.name).items()}
    put(worker, domain.name, model, str(start["of"]), fresh)
    if start["settled"]:
        settle(worker, domain, seed)


def slots_of(model: Universal, name: str) -> dict[str, Tensor]:
    """A domain's tensors without those of its heads."""
    return {key: value for key, value in model.own(name).items() if key.startswith("slots/")}


@torch.no_grad()
def put(
    worker: Universal, name: str, model: Universal, of: str, fresh: Mapping[str, Tensor]
) -> None:
    """The worker's slots as `fresh`, then as those of a domain of the model where they fit."""
    theirs = {} if of == TRUNK else slots_of(model, of)
    for key, tensor in slots_of(worker, name).items():
        other = theirs.get(key)
        fits = other is not None and other.shape == tensor.shape
        tensor.copy_(other if other is not None and fits else fresh[key])


def some(names: list[str], seed: int) -> list[str]:
    """As many as are tried, drawn where there are more."""
    if len(names) < TRIED:
        return names
    drawn = permutation(seed_of(seed, "start"), 0, len(names))[: TRIED - 1]
    return [names[i] for i in sorted(drawn)]


def probe(domain: Domain, task: str, seed: int) -> tuple[list[Tensor], Tensor]:
    """Labelled images that may be learned from or chosen by, some of them: batches, and labels."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for split in (domain.train, domain.val):
        known = np.flatnonzero(split.label(task) != NO_CLASS)
        order = permutation(seed_of(seed, domain.name, split.name, "probe"), 0, len(known))
        share = PROBED * len(split) // max(1, len(domain.train) + len(domain.val))
        for places in np.array_split(known[order[: max(1, share)]], max(1, -(-share // BATCH))):
            if len(places):
                pixels, targets = split.batch(places)
                images.append(pixels)
                labels.append(targets[task])
    found = torch.cat(labels)
    mixed = torch.from_numpy(permutation(seed_of(seed, "halves"), 0, len(found)))
    return list(torch.split(torch.cat(images)[mixed], BATCH)), found[mixed]


def features(model: Universal, name: str, images: list[Tensor]) -> Tensor:
    """Pooled features of batches, on the CPU."""
    like = next(model.parameters())
    with evaluating(model), model.trunk.switch.using(name):
        found = [model.trunk(x.to(device=like.device, dtype=like.dtype))[0] for x in images]
    return torch.cat([f.float().cpu() for f in found])


def settle(worker: Universal, domain: Domain, seed: int) -> bool:
    """Running statistics of the new training images; False where slots keep none."""
    moving = [slot for slot in _slots(worker, domain.name) if _moves(slot)]
    if not moving or len(domain.train) < 2:
        return False
    like = next(worker.parameters())
    before = [(module, module.training) for module in worker.modules()]
    try:
        worker.eval()
        for slot in moving:
            slot.train()
        with torch.no_grad(), worker.trunk.switch.using(domain.name):
            for places in _passes(domain.train, seed):
                x, _ = domain.train.batch(places)
                worker.trunk(x.to(device=like.device, dtype=like.dtype))
    finally:
        for module, mode in before:
            module.training = mode
    return True


def _slots(worker: Universal, name: str) -> list[nn.Module]:
    found = [bank.slots.get(name) for bank in worker.trunk.banks().values()]
    return [module for slot in found if slot is not None for module in slot.modules()]


def _moves(module: nn.Module) -> bool:
    stats = isinstance(module, _BatchNorm) and module.running_mean is not None
    return stats or isinstance(module, Stats)


def _passes(split: Split, seed: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The places of each pass, epoch after epoch."""
    size = min(BATCH, len(split))
    places: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    epoch = 0
    while len(places) < SETTLE:
        order = permutation(seed_of(seed, "settle"), epoch, len(split))
        places += [order[i : i + size] for i in range(0, len(split) - size + 1, size)]
        epoch += 1
    return places[:SETTLE]
