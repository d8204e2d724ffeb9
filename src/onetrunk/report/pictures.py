"""Pictures of predictions, right and wrong: test images beside what the model says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import U8
from onetrunk.data.split import Split
from onetrunk.data.task import NO_CLASS, NO_LABEL, Task
from onetrunk.eval.features import draw, evaluating, parts
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.report.dense import DenseExample, dense_examples
from onetrunk.report.picture import Picture

SAMPLE = 256  # test images of a domain that are looked at
SHOWN = 8  # of a row


@dataclass(frozen=True)
class Example:
    """One test image (or a query and what was found) with the truth and the answer."""

    pictures: tuple[Picture, ...]
    truth: str
    said: str
    right: bool
    file: str
    score: float | None = None  # how sure, of a class


@dataclass(frozen=True)
class Shown:
    """One task's pictures, in rows with a heading; or a domain's maps."""

    domain: str
    task: str
    kind: str
    seen: int  # images that these were chosen from
    rows: tuple[tuple[str, tuple[Example, ...]], ...] = ()
    maps: tuple[DenseExample, ...] = ()
    classes: tuple[str, ...] = ()  # of a class map


def pictures(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> tuple[Shown, ...]:
    """Every task of every domain, on a seeded sample of its test images."""
    found: list[Shown] = []
    for domain in domains:
        model = models[domain.name]
        card = model.domains[domain.name]
        split = split_for(domain, card, "test")
        if not len(split):
            continue
        places = draw(split, domain.name, sample, seed)
        out, targets = predictions(model, domain.name, split, places)
        dense = [task for task in card.tasks if task.dense]
        for task in card.tasks:
            if not task.dense:
                chosen = _ROWS[task.kind](task, out[task.name], targets[task.name], seed)
                rows = [(head, _shown(split, places, row)) for head, row in chosen if row]
                found.append(Shown(domain.name, task.name, task.kind, len(places), tuple(rows)))
        if dense:
            examples = dense_examples(split, places, dense, out, targets)
            classes = next((task.classes for task in dense if task.kind == "segment"), ())
            names = ", ".join(task.name for task in dense)
            found.append(
                Shown(domain.name, names, "dense", len(places), maps=examples, classes=classes)
            )
    return tuple(found)


def predictions(
    model: Universal, name: str, split: Split, places: NDArray[np.int64]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and targets by task, of these images."""
    like = next(model.parameters())
    outs: list[dict[str, Tensor]] = []
    targets: list[dict[str, Tensor]] = []
    with evaluating(model), torch.inference_mode():
        for part in parts(places):
            images, target = split.batch(part)
            out = model(images.to(like.device, like.dtype), domain=name)
            outs.append({task: value.float().cpu() for task, value in out.items()})
            targets.append(target)
    return (
        {task: torch.cat([out[task] for out in outs]) for task in outs[0]},
        {task: torch.cat([target[task] for target in targets]) for task in targets[0]},
    )


@dataclass(frozen=True)
class _Chosen:
    """An answer before its picture is made; `rows`: places among the sample."""

    rows: tuple[int, ...]
    truth: str
    said: str
    right: bool
    score: float | None = None


_Rows = list[tuple[str, list[_Chosen]]]


def _classify(task: Task, out: Tensor, target: Tensor, seed: int) -> _Rows:
    score, best = out.softmax(1).max(1)
    known = target != NO_CLASS

    def chosen(row: int) -> _Chosen:
        true, said = int(target[row]), int(best[row])
        name = task.classes
        return _Chosen((row,), name[true], name[said], true == said, float(score[row]))

    right = torch.nonzero(known & (best == target)).flatten().numpy()
    wrong = torch.nonzero(known & (best != target)).flatten()
    surest = wrong[score[wrong].argsort(descending=True)].tolist()
    return [
        ("Right, drawn at random", [chosen(row) for row in _some(right, seed)]),
        ("Wrong, the surest first", [chosen(row) for row in surest[:SHOWN]]),
    ]


def _multilabel(task: Task, out: Tensor, target: Tensor, seed: int) -> _Rows:
    said = out.sigmoid() >= 0.5
    known = (target != NO_LABEL).all(1)
    faults = (said != (target == 1)).sum(1)

    def names(row: Tensor) -> str:
        return ", ".join(c for c, there in zip(task.classes, row.tolist(), strict=True) if there)

    def chosen(row: int) -> _Chosen:
        return _Chosen(
            (row,), names(target[row] == 1) or "–", names(said[row]) or "–", not faults[row]
        )

    right = torch.nonzero(known & (faults == 0)).flatten().numpy()
    wrong = torch.nonzero(known & (faults > 0)).flatten()
    worst = wrong[faults[wrong].argsort(descending=True, stable=True)].tolist()
    return [
        ("Every label right, drawn at random", [chosen(row) for row in _some(right, seed)]),
        ("Wrong, most labels first", [chosen(row) for row in worst[:SHOWN]]),
    ]


def _regress(task: Task, out: Tensor, target: Tensor, seed: int) -> _Rows:
    known = torch.nonzero(torch.isfinite(target).all(1)).flatten()
    apart = (out - target)[known].norm(dim=1)
    order = known[apart.argsort()].tolist()
    unit = f" {task.unit}" if task.unit else ""

    def words(row: Tensor) -> str:
        return ", ".join(f"{v:.4g}" for v in row[:4].tolist()) + unit

    def chosen(row: int, right: bool) -> _Chosen:
        return _Chosen((row,), words(target[row]), words(out[row]), right)

    middle = len(order) // 2
    near, far = order[:middle], order[middle:]
    picked = _some(np.array(near, dtype=np.int64), seed)
    return [
        ("Of the nearer half, drawn at random", [chosen(row, True) for row in picked]),
        ("Furthest off first", [chosen(row, False) for row in far[::-1][:SHOWN]]),
    ]


def _embed(task: Task, out: Tensor, target: Tensor, seed: int) -> _Rows:
    known = torch.nonzero(target != NO_CLASS).flatten()
    if len(known) < 2:
        return []
    label = target[known]
    near = out[known] @ out[known].T
    near.fill_diagonal_(-2)
    score, best = near.max(1)
    others = (label[:, None] == label[None]).sum(1) > 1  # somebody of its class can be found
    right = others & (label[best] == label)

    def chosen(i: int) -> _Chosen:
        rows = (int(known[i]), int(known[best[i]]))
        true, said = (task.classes[int(target[row])] for row in rows)
        return _Chosen(rows, true, said, bool(right[i]), float(score[i]))

    wrong = torch.nonzero(others & ~right).flatten()
    surest = wrong[score[wrong].argsort(descending=True)].tolist()
    picked = _some(torch.nonzero(right).flatten().numpy(), seed)
    return [
        ("Nearest image of the same class, drawn at random", [chosen(i) for i in picked]),
        ("Nearest image of another class, the nearest first", [chosen(i) for i in surest[:SHOWN]]),
    ]


_ROWS = {
    "classify": _classify,
    "multilabel": _multilabel,
    "regress": _regress,
    "embed": _embed,
}


def _some(rows: NDArray[np.int64], seed: int) -> list[int]:
    """So many of these as a row shows."""
    chance = np.random.default_rng(seed)
    picked: list[int] = chance.choice(rows, min(SHOWN, len(rows)), replace=False).tolist()
    return picked


def _shown(
    split: Split, places: NDArray[np.int64], chosen: Sequence[_Chosen]
) -> tuple[Example, ...]:
    return tuple(
        Example(
            tuple(Picture.of(image) for image in images_of(split, places[list(one.rows)])),
            one.truth,
            one.said,
            one.right,
            split.key(int(places[one.rows[0]])),
            one.score,
        )
        for one in chosen
    )


def images_of(split: Split, places: NDArray[np.int64]) -> U8:
    """Images (B, H, W, 3) as the model sees them, before normalization."""
    images, _ = split.stored(places)
    seen: U8 = split.pixels.centre(images)
    return seen
