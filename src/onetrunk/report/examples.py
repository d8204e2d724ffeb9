"""Example predictions: test images with the truth and what the model predicts."""

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
from onetrunk.eval.model_split import even_batches, sample_places, split_for
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.universal import Universal
from onetrunk.report.map_examples import MapExample, map_examples
from onetrunk.report.thumbnail import Thumbnail

SAMPLE = 256  # test images of a domain that examples are chosen from
ROW_LENGTH = 8  # examples in a row


@dataclass(frozen=True)
class Example:
    """One test image, or a query and its nearest image, with truth and prediction."""

    thumbnails: tuple[Thumbnail, ...]
    truth: str
    predicted: str
    correct: bool
    file: str
    confidence: float | None = None  # the probability of a class, or a cosine


@dataclass(frozen=True)
class ExampleRow:
    """Examples with one rule of selection."""

    heading: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class TaskExamples:
    """The examples of one task, in rows; or a domain's dense predictions as maps."""

    domain: str
    task: str
    kind: str
    sample: int  # images that these were chosen from
    rows: tuple[ExampleRow, ...] = ()
    maps: tuple[MapExample, ...] = ()
    classes: tuple[str, ...] = ()  # of a class map


def task_examples(
    models: Mapping[str, Universal],
    domains: Sequence[Domain],
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> tuple[TaskExamples, ...]:
    """Choose examples of every task from a seeded sample of each domain's test images."""
    found: list[TaskExamples] = []
    for domain in domains:
        model = models[domain.name]
        card = model.domains[domain.name]
        split = split_for(domain, card, "test")
        if not len(split):
            continue
        indices = sample_places(split, domain.name, sample, seed)
        outputs, targets = predict(model, domain.name, split, indices)
        for task in card.tasks:
            if not task.dense:
                rows = tuple(
                    ExampleRow(heading, _with_images(split, indices, chosen))
                    for heading, chosen in _CHOOSE[task.kind](
                        task, outputs[task.name], targets[task.name], seed
                    )
                    if chosen
                )
                found.append(TaskExamples(domain.name, task.name, task.kind, len(indices), rows))
        if dense := [task for task in card.tasks if task.dense]:
            found.append(
                TaskExamples(
                    domain.name,
                    ", ".join(task.name for task in dense),
                    "dense",
                    len(indices),
                    maps=map_examples(split, indices, dense, outputs, targets),
                    classes=next((task.classes for task in dense if task.kind == "segment"), ()),
                )
            )
    return tuple(found)


def predict(
    model: Universal, name: str, split: Split, indices: NDArray[np.int64]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return outputs and targets of these images, by task."""
    parameter = next(model.parameters())
    outputs: list[dict[str, Tensor]] = []
    targets: list[dict[str, Tensor]] = []
    with eval_mode(model), torch.inference_mode():
        for part in even_batches(indices):
            images, target = split.batch(part)
            output = model(images.to(parameter.device, parameter.dtype), domain=name)
            outputs.append({task: value.float().cpu() for task, value in output.items()})
            targets.append(target)
    return (
        {task: torch.cat([output[task] for output in outputs]) for task in outputs[0]},
        {task: torch.cat([target[task] for target in targets]) for task in targets[0]},
    )


@dataclass(frozen=True)
class _ExampleDraft:
    """An example without its thumbnails."""

    rows: tuple[int, ...]  # indices into the sample
    truth: str
    predicted: str
    correct: bool
    confidence: float | None = None


_Rows = list[tuple[str, list[_ExampleDraft]]]  # heading, examples


def _classify(task: Task, output: Tensor, target: Tensor, seed: int) -> _Rows:
    score, best = output.softmax(1).max(1)
    known = target != NO_CLASS

    def chosen(row: int) -> _ExampleDraft:
        truth, predicted = int(target[row]), int(best[row])
        names = task.classes
        correct = truth == predicted
        return _ExampleDraft((row,), names[truth], names[predicted], correct, float(score[row]))

    correct = torch.nonzero(known & (best == target)).flatten().numpy()
    wrong = torch.nonzero(known & (best != target)).flatten()
    confident = wrong[score[wrong].argsort(descending=True)].tolist()
    return [
        ("Correct, chosen at random", [chosen(row) for row in _random(correct, seed)]),
        ("Wrong, most confident first", [chosen(row) for row in confident[:ROW_LENGTH]]),
    ]


def _multilabel(task: Task, output: Tensor, target: Tensor, seed: int) -> _Rows:
    predicted = output.sigmoid() >= 0.5
    known = (target != NO_LABEL).all(1)
    mistakes = (predicted != (target == 1)).sum(1)

    def names(row: Tensor) -> str:
        return ", ".join(c for c, on in zip(task.classes, row.tolist(), strict=True) if on) or "–"

    def chosen(row: int) -> _ExampleDraft:
        return _ExampleDraft(
            (row,), names(target[row] == 1), names(predicted[row]), not mistakes[row]
        )

    correct = torch.nonzero(known & (mistakes == 0)).flatten().numpy()
    wrong = torch.nonzero(known & (mistakes > 0)).flatten()
    worst = wrong[mistakes[wrong].argsort(descending=True, stable=True)].tolist()
    return [
        ("All labels correct, chosen at random", [chosen(row) for row in _random(correct, seed)]),
        ("Most wrong labels first", [chosen(row) for row in worst[:ROW_LENGTH]]),
    ]


def _regress(task: Task, output: Tensor, target: Tensor, seed: int) -> _Rows:
    known = torch.nonzero(torch.isfinite(target).all(1)).flatten()
    error = (output - target)[known].norm(dim=1)
    order = known[error.argsort()].tolist()
    unit = f" {task.unit}" if task.unit else ""

    def numbers(row: Tensor) -> str:
        return ", ".join(f"{v:.4g}" for v in row[:4].tolist()) + unit

    def chosen(row: int, correct: bool) -> _ExampleDraft:
        return _ExampleDraft((row,), numbers(target[row]), numbers(output[row]), correct)

    half = len(order) // 2
    small, large = order[:half], order[half:]
    picked = _random(np.array(small, dtype=np.int64), seed)
    return [
        ("Half with the smaller errors, chosen at random", [chosen(row, True) for row in picked]),
        ("Largest errors first", [chosen(row, False) for row in large[::-1][:ROW_LENGTH]]),
    ]


def _embed(task: Task, output: Tensor, target: Tensor, seed: int) -> _Rows:
    known = torch.nonzero(target != NO_CLASS).flatten()
    if len(known) < 2:
        return []
    label = target[known]
    cosine = output[known] @ output[known].T
    cosine.fill_diagonal_(-2)
    score, best = cosine.max(1)
    has_positive = (label[:, None] == label[None]).sum(1) > 1  # another image of its class
    correct = has_positive & (label[best] == label)

    def chosen(i: int) -> _ExampleDraft:
        rows = (int(known[i]), int(known[best[i]]))
        truth, predicted = (task.classes[int(target[row])] for row in rows)
        return _ExampleDraft(rows, truth, predicted, bool(correct[i]), float(score[i]))

    wrong = torch.nonzero(has_positive & ~correct).flatten()
    similar = wrong[score[wrong].argsort(descending=True)].tolist()
    picked = _random(torch.nonzero(correct).flatten().numpy(), seed)
    return [
        ("Nearest image of the same class, chosen at random", [chosen(i) for i in picked]),
        (
            "Nearest image of another class, most similar first",
            [chosen(i) for i in similar[:ROW_LENGTH]],
        ),
    ]


_CHOOSE = {
    "classify": _classify,
    "multilabel": _multilabel,
    "regress": _regress,
    "embed": _embed,
}


def _random(rows: NDArray[np.int64], seed: int) -> list[int]:
    """Draw the random examples of one row."""
    rng = np.random.default_rng(seed)
    picked: list[int] = rng.choice(rows, min(ROW_LENGTH, len(rows)), replace=False).tolist()
    return picked


def _with_images(
    split: Split, indices: NDArray[np.int64], chosen: Sequence[_ExampleDraft]
) -> tuple[Example, ...]:
    return tuple(
        Example(
            tuple(Thumbnail.of(image) for image in _images(split, indices[list(one.rows)])),
            one.truth,
            one.predicted,
            one.correct,
            split.key(int(indices[one.rows[0]])),
            one.confidence,
        )
        for one in chosen
    )


def _images(split: Split, indices: NDArray[np.int64]) -> U8:
    """Return images (B, H, W, 3) as the model receives them, before normalization."""
    images, _ = split.stored(indices)
    centred: U8 = split.pixels.centre(images)
    return centred
