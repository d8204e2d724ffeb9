"""Evaluate a timm checkpoint without training: its outputs are matched to classes by name.

Images are prepared as the checkpoint was trained: its size, crop, mean and
standard deviation (resized bilinearly, as everywhere in onetrunk). Only outputs that have the name
of a class of the domain compete; a class without an output is never predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput, printable, shorten
from onetrunk.eval.evaluate import (
    BATCH,
    distinct_domains,
    evaluate_batches,
    inference,
    plan_batches,
)
from onetrunk.eval.external_predictions import ExternalResult
from onetrunk.eval.model_split import split_through
from onetrunk.eval.outcomes import Key
from onetrunk.eval.result import EvaluationResult, TaskResult
from onetrunk.nn.card import Card
from onetrunk.nn.foreign import (
    Label,
    Places,
    class_logits,
    create_timm,
    match_classes,
    missing_classes,
    places_table,
    timm_labels,
    timm_pixels,
)
from onetrunk.progress import Track, say

Labels = Sequence[str] | str | PathLike[str]


def evaluate_checkpoint(
    arch: str,
    domains: Sequence[Domain],
    split: str = "test",
    *,
    weights: bool | str | PathLike[str] = True,
    labels: Labels | None = None,
    batch: int = BATCH,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> ExternalResult:
    """Evaluate timm's model `arch` on the classify tasks of these domains.

    Args:
        weights: True for timm's own, or a file (safetensors, or a state dict).
        labels: The names of the outputs, or a text file with one per line; by default ImageNet's.
        batch: The maximum number of images per pass.
    """
    several = distinct_domains(domains)
    net, names = build(arch, weights, labels)
    pixels = timm_pixels(net)
    net.to("cpu" if device is None else device)
    matched: dict[Key, Places] = {}
    notes: list[str] = []
    for domain in several:
        for task in domain.tasks:
            where = f"{domain.name}/{task.name}"
            if task.kind != "classify":
                notes.append(f"{where}: left out, because the checkpoint only classifies")
                continue
            places = match_classes(task.classes, names)
            missing = missing_classes(places)
            if len(missing) == len(task.classes):
                notes.append(f"{where}: left out, because no output has the name of a class")
                continue
            matched[domain.name, task.name] = places
            pairs = [f"{name} = {_shown(places[name], names)}" for name in places if places[name]]
            notes.append(f"{where}: {shorten(pairs, 8)}")
            if missing:
                notes.append(
                    f"{where}: {len(missing)} of {len(task.classes)} classes have no output and "
                    f"are never predicted: {shorten(missing, 8)}"
                )
    notes = [printable(f"{arch}: {note}") for note in notes]
    for note in notes:
        say(note)
    if not matched:
        raise BadInput(
            f"{arch}: no output has the name of a class",
            got=shorten([c for d in several for t in d.tasks for c in t.classes], 5),
            available=[label[0] for label in names],
            try_="labels=FILE, a text file with the names of its outputs, one per line",
        )
    matched_domains = [domain for domain in several if domain.name in {name for name, _ in matched}]
    splits = [split_through(domain, pixels, split) for domain in matched_domains]
    results: list[TaskResult] = []
    shown = Track(f"evaluating {arch}", sum(map(len, splits))) if progress else nullcontext()
    with shown as track, inference(net):
        for domain, images in zip(matched_domains, splits, strict=True):
            if len(images):
                tasks = [task for task in domain.tasks if (domain.name, task.name) in matched]
                card = Card(domain.name, tuple(tasks), pixels)
                batches = plan_batches(card, len(images), images.name, batch=batch)
                predict = _predictor(net, {t.name: matched[domain.name, t.name] for t in tasks})
                results += evaluate_batches(card, images, batches, predict, track)
    listed = {
        key: {name: tuple(names[i][0] for i in outputs) for name, outputs in places.items()}
        for key, places in matched.items()
    }
    return ExternalResult(arch, EvaluationResult(split, results), tuple(notes), listed)


def build(
    arch: str, weights: bool | str | PathLike[str], labels: Labels | None
) -> tuple[nn.Module, list[Label]]:
    """Return the network with its classifier, and the names of its outputs."""
    given = None if labels is None else _read(labels)
    net = create_timm(arch, weights, None if given is None or weights is True else len(given))
    if net.num_classes < 1:
        raise BadInput(f"{arch} has no classifier", try_="another model, or train heads on it")
    if given is None:
        return net, timm_labels(arch, net)
    if len(given) != net.num_classes:
        raise BadInput(f"{arch} has {net.num_classes} outputs", got=f"{len(given)} names")
    return net, [(label,) for label in given]


def _predictor(net: Any, matched: Mapping[str, Places]) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Return a function from pixels to the logits of each task's classes."""
    like = next(net.parameters())
    tables = {
        task: places_table(places, net.num_classes).to(like.device)
        for task, places in matched.items()
    }

    def predict(pixels: Tensor) -> Mapping[str, Tensor]:
        logits = net(pixels.to(like.device, like.dtype, non_blocking=True)).float()
        return {task: class_logits(logits, table) for task, table in tables.items()}

    return predict


def _read(labels: Labels) -> list[str]:
    if not isinstance(labels, str | PathLike):
        return [str(label) for label in labels]
    try:
        lines = Path(labels).read_text("utf-8").splitlines()
    except OSError as error:
        raise BadInput("labels: cannot read the file", got=error.strerror) from None
    except UnicodeDecodeError:
        raise BadInput("labels: the file is not UTF-8", try_="one name per line") from None
    return [line.strip() for line in lines if line.strip()]


def _shown(places: Sequence[int], names: Sequence[Label]) -> str:
    """Return one name of each output; for ImageNet, the first synonym."""
    return " + ".join(names[i][min(1, len(names[i]) - 1)] for i in places)
