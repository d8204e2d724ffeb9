"""A handful of images: class means first, then more, chosen on held-out folds of the few.

Below 8 images a class there is too little to set a third aside: validation is learned from as well,
and every way is evaluated by what it says of images that it has not seen, each once, in folds that
hold out every class (Stone 1974). The ways, simplest first: class means (means.py), a linear head
(linear.py), adapters that start from the class means of their fold. The first with the fewest
errors is taken and learns from all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onetrunk.config.add_recipe import Few
from onetrunk.data.domain import Domain
from onetrunk.data.seeded import permutation, seed_of
from onetrunk.data.split import Split
from onetrunk.data.splitting import SPLITS
from onetrunk.data.task import NO_CLASS, Task
from onetrunk.nn.heads import Pooled
from onetrunk.nn.universal import Universal
from onetrunk.progress import say
from onetrunk.train.fewshot.class_means import class_means
from onetrunk.train.linear_heads import Design, Solved, classify
from onetrunk.train.new_domain import initial_slots as starts
from onetrunk.train.new_domain.trial import Ground, Kind

FEW = 8.0  # images a class, on average, below which a domain is a handful
FOLDS = 5
STEPS, BATCH = 60, 32  # of adapters on a handful, where the user says no other length
GRID = (1e1, 1.0, 1e-1, 1e-2, 1e-3)  # λ of the linear head
MEANS, LINEAR = "class means", "linear head"


@dataclass(frozen=True)
class Way:
    """One way to learn from the few, and the percent that it got wrong of the images held out."""

    name: str
    kind: Kind
    error: float | None  # None: nothing could be held out

    def to_json(self) -> dict[str, Any]:
        """As results list it."""
        rank = self.kind.rank
        return {"way": self.name, "adapters": self.kind.name, "rank": rank, "error": self.error}


class View(Domain):
    """A domain with other images in its splits; everything else is the domain's own."""

    def __init__(self, of: Domain, rows: dict[str, NDArray[np.int64]]) -> None:
        of.check()
        given = (of.index, of.decoded, of.pixels, of.augmentation)  # found by all of its images
        self.__dict__.update(of.__dict__)
        index, decoded, pixels, _ = given
        self._rows = rows
        self.__dict__["splits"] = {
            name: Split(name, rows[name], index, decoded.frames, pixels) for name in SPLITS
        }

    def good(self, split: str) -> NDArray[np.int64]:
        """These images; that they can be read is known."""
        return self._rows[split]

    def check(self) -> None:
        """Done before."""


def is_few(domain: Domain, asked: Few) -> bool:
    """Whether this is a handful: under 8 images a class to learn and to choose by."""
    if asked is False or any(task.kind != "classify" for task in domain.tasks):
        return False
    shots = [_labelled(domain, task) / max(1, len(task.classes)) for task in domain.tasks]
    return asked is True or min(shots) < FEW


def _labelled(domain: Domain, task: Task) -> int:
    splits = (domain.train, domain.val)
    return sum(int((split.label(task.name) != NO_CLASS).sum()) for split in splits)


def folds(domain: Domain, seed: int) -> list[View]:
    """Train and validation together, cut so that every class with two images is held out somewhere.

    The images of a class go round the folds in a seeded order; the only image of a class is always
    learned from.
    """
    rows = together(domain)
    labels = domain.index.labels[domain.tasks[0].name][rows]
    of = np.full(len(rows), -1)
    turn = 0
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        if len(mine) < 2 or label == NO_CLASS:
            continue
        order = permutation(seed_of(seed, domain.name, "folds"), int(label), len(mine))
        of[mine[order]] = (turn + np.arange(len(mine))) % FOLDS
        turn += len(mine)
    return [
        View(domain, {"train": rows[of != k], "val": rows[of == k], "test": domain.test.rows})
        for k in range(FOLDS)
        if (of == k).any()
    ]


def together(domain: Domain) -> NDArray[np.int64]:
    """The places of all images that may be learned from."""
    return np.sort(np.concatenate([domain.train.rows, domain.val.rows]))


def all_of(domain: Domain) -> View:
    """Everything learned from; the loop asks for validation images, and gets the same."""
    rows = together(domain)
    return View(domain, {"train": rows, "val": rows, "test": domain.test.rows})


def choose(ground: Ground, kinds: Sequence[Kind]) -> tuple[Way, list[Way], str]:
    """The way that the folds like best, all ways, and why; its pack is kept as that of a trial."""
    domain, cut = ground.domain, folds(ground.domain, ground.growth.seed)
    frozen = ground.worker(Kind("none"))
    found = Seen.of(frozen, all_of(domain))
    held = sum(len(fold.val) for fold in cut)
    if not cut:
        why = f"{MEANS}: no class has two images, so nothing can be held out to choose by"
        way = Way(MEANS, Kind("none"), None)
        _take_head(ground, frozen, domain, found, MEANS)
        return way, [way], why
    errors = [(MEANS, Kind("none"), _heads_error(found, domain, cut, None))]
    for l2 in GRID:
        error = _heads_error(found, domain, cut, l2)
        errors.append((f"{LINEAR}, L2 {l2:g}", Kind("none"), error))
    for kind in kinds:
        if kind.name != "none":
            errors.append((kind.label, kind, _adapted_error(ground, kind, cut)))
    ways = [(Way(*each), each[2]) for each in errors]
    best, error = min(ways, key=lambda pair: pair[1])  # the first of equals: the simplest
    why = (
        f"{best.name}: {error:.1f} % error on {held} images held out in {len(cut)} folds "
        f"(class means {ways[0][1]:.1f} %)"
    )
    if best.kind.name == "none":
        _take_head(ground, frozen, domain, found, best.name)
    else:
        _learn_all(ground, best)
    return best, [way for way, _ in ways], why


# -- heads on frozen features


@dataclass(frozen=True)
class Seen:
    """Frozen features of all images, by their places in the index."""

    rows: NDArray[np.int64]
    features: Tensor

    @classmethod
    def of(cls, worker: Universal, view: View) -> Seen:
        """Each image once, unvaried."""
        places = np.arange(len(view.train))
        parts = [places[i : i + BATCH] for i in range(0, len(places), BATCH)]
        images = [view.train.batch(part)[0] for part in parts]
        return cls(view.train.rows, starts.features(worker, view.name, images))

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The features of these images."""
        return self.features[torch.from_numpy(np.searchsorted(self.rows, rows))]


def solve(seen: Seen, split: Split, task: Task, l2: float | None) -> tuple[Tensor, Tensor]:
    """A head from a split's labelled images: class means, or a linear one of this strength."""
    labels = split.label(task.name).astype(np.int64)
    known = np.flatnonzero(labels != NO_CLASS)
    features, target = seen.take(split.rows[known]), torch.from_numpy(labels[known])
    if l2 is None:
        return class_means(features, target, len(task.classes))
    x = Design(features.numpy(), np.arange(len(known)), torch.device("cpu"))
    solved: Solved = next(iter(classify(x, target, None, len(task.classes), (l2,))))
    return solved.weight, solved.bias


def _heads_error(seen: Seen, domain: Domain, cut: Sequence[View], l2: float | None) -> float:
    """Percent of the held-out labels that are named wrongly, the mean over tasks."""
    errors = []
    for task in domain.tasks:
        wrongly = asked = 0
        for fold in cut:
            weight, bias = solve(seen, fold.train, task, l2)
            labels = fold.val.label(task.name).astype(np.int64)
            said = (seen.take(fold.val.rows).double() @ weight.T + bias).argmax(1).numpy()
            wrongly += int((said != labels)[labels != NO_CLASS].sum())
            asked += int((labels != NO_CLASS).sum())
        errors.append(100 * wrongly / max(1, asked))
    return float(np.mean(errors))


def _set_heads(
    worker: Universal, domain: Domain, seen: Seen, split: Split, l2: float | None
) -> None:
    for task in domain.tasks:
        head: nn.Module = worker.heads_of(domain.name).head(task.name)
        if isinstance(head, Pooled):
            weight, bias = solve(seen, split, task, l2)
            with torch.no_grad():
                head.weight.copy_(weight)
                head.bias.copy_(bias)


def _take_head(ground: Ground, worker: Universal, domain: Domain, seen: Seen, way: str) -> None:
    """The chosen head from all images; kept as the pack of kind none."""
    if ground.pack_path(Kind("none")).exists():
        return
    l2 = None if way == MEANS else float(way.rsplit(" ", 1)[1])
    _set_heads(worker, domain, seen, all_of(domain).train, l2)
    ground.keep(worker, Kind("none"), 0.0, 0, 0.0)


# -- adapters


def _fitted(ground: Ground, kind: Kind, view: View, part: str) -> Universal:
    """A worker that learned from the view's training images, from their class means on."""
    worker = ground.worker(kind)
    _set_heads(worker, view, Seen.of(worker, all_of(ground.domain)), view.train, None)
    ground.learn(worker, kind, part, view, ground.growth.train)
    return worker


def _adapted_error(ground: Ground, kind: Kind, cut: Sequence[View]) -> float:
    """As `_heads_error`, each fold learned by the loop; what is done is remembered."""
    wrongly = {task.name: 0 for task in ground.domain.tasks}
    asked = dict(wrongly)
    for k, fold in enumerate(cut):
        part = f"{kind.label}-fold-{k}"
        if part not in ground.tried:
            worker = _fitted(ground, kind, fold, part).eval()
            ground.lwf(part, _missed(worker, fold))
            ground.clear(part)
        for name, (missed, count) in ground.tried[part].items():
            wrongly[name] += missed
            asked[name] += count
    say(f"{kind.label}: {len(cut)} folds learned")
    return float(np.mean([100 * wrongly[name] / max(1, asked[name]) for name in wrongly]))


def _missed(worker: Universal, fold: View) -> dict[str, list[int]]:
    """By task how many of the fold's held-out labels were missed, and how many there are."""
    images = [
        fold.val.batch(np.arange(i, min(i + BATCH, len(fold.val))))[0]
        for i in range(0, len(fold.val), BATCH)
    ]
    like = next(worker.parameters())
    with torch.inference_mode():
        outputs = [worker(x.to(like.device, like.dtype), domain=fold.name) for x in images]
    found = {}
    for task in fold.tasks:
        said = torch.cat([out[task.name] for out in outputs]).argmax(1).cpu().numpy()
        labels = fold.val.label(task.name)
        known = labels != NO_CLASS
        found[task.name] = [int((said != labels)[known].sum()), int(known.sum())]
    return found


def _learn_all(ground: Ground, way: Way) -> None:
    """The chosen adapters from all images."""
    part = way.kind.label
    if part in ground.tried:
        return
    worker = _fitted(ground, way.kind, all_of(ground.domain), part)
    ground.keep(worker, way.kind, way.error or 0.0, ground.growth.train.steps or 0, 0.0)
