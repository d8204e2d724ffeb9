"""A timm checkpoint as it is, over our domains: its own labels stand for classes of the same name.

Nothing is trained. Its own size, crop, mean and standard deviation make the images (resized bilinearly, as
everywhere in onetrunk). A class is any label of its name, apart from case, blanks, `_` and `-`; an
ImageNet label has several names ("great white shark, white shark, …", and its synset's number).
Only labels that stand for a class of the domain compete; a class that no label names is never
predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Fit, Pixels
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, printable, shorten
from onetrunk.eval.evaluate import BATCH, each_once, evaluating, finite, plan, read_ahead
from onetrunk.eval.evaluation import EvaluationResult, TaskResult
from onetrunk.eval.external_predictions import Outside, normal
from onetrunk.eval.metrics import scores_of
from onetrunk.eval.model_split import split_through
from onetrunk.eval.outcomes import Key
from onetrunk.nn.backbone import load_weights
from onetrunk.nn.card import Card
from onetrunk.progress import Track, say

NEVER = -1e4  # the logit of a class that no label names
CROP = 0.875  # timm's, where a model does not say it
FITS: Mapping[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}
Labels = Sequence[str] | str | PathLike[str]
Names = tuple[str, ...]  # of one label


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
) -> Outside:
    """timm's model `arch`, evaluated on the classify tasks of these domains.

    `weights`: True for timm's own, or a file (safetensors, or a state dict, read without running
    its pickle's code). `labels`: one name a label, or a text file with one a line; else ImageNet's.
    """
    several = each_once(domains)
    net, names = build(arch, weights, labels)
    pixels = pixels_of(net)
    net.to("cpu" if device is None else device)
    matched: dict[Key, dict[str, tuple[int, ...]]] = {}
    notes: list[str] = []
    for domain in several:
        for task in domain.tasks:
            where = f"{domain.name}/{task.name}"
            if task.kind != "classify":
                notes.append(f"{where}: to {task.kind} is not what it learned: left out")
                continue
            found = match(task, names)
            lacking = [name for name in task.classes if not found[name]]
            if len(lacking) == len(task.classes):
                notes.append(f"{where}: none of its classes is a label: left out")
                continue
            matched[domain.name, task.name] = found
            pairs = [f"{name} = {_said(found[name], names)}" for name in found if found[name]]
            notes.append(f"{where}: {shorten(pairs, 8)}")
            if lacking:
                notes.append(
                    f"{where}: {len(lacking)} of {len(task.classes)} classes are no label, so "
                    f"never predicted: {shorten(lacking, 8)}"
                )
    notes = [printable(f"{arch}: {note}") for note in notes]
    for note in notes:
        say(note)
    if not matched:
        raise BadInput(
            f"{arch}: no label has the name of a class",
            got=shorten([c for d in several for t in d.tasks for c in t.classes], 5),
            available=[label[0] for label in names],
            try_="labels=FILE, one name a line, says what its outputs are",
        )
    evaluated: list[TaskResult] = []
    parts = {
        domain.name: split_through(domain, pixels, split)
        for domain in several
        if any(name == domain.name for name, _ in matched)
    }
    with Track(f"evaluating {arch}", sum(len(images) for images in parts.values())) as track:
        for domain in several:
            if domain.name in parts and len(parts[domain.name]):
                own = {t: f for (name, t), f in matched.items() if name == domain.name}
                tasks = [task for task in domain.tasks if task.name in own]
                card = Card(domain.name, tuple(tasks), pixels)
                with evaluating(net):
                    evaluated += _one(
                        net, card, parts[domain.name], own, batch, track if progress else None
                    )
    shown = {
        key: {name: tuple(names[i][0] for i in places) for name, places in found.items()}
        for key, found in matched.items()
    }
    return Outside(arch, EvaluationResult(split, evaluated), tuple(notes), shown)


def build(
    arch: str, weights: bool | str | PathLike[str], labels: Labels | None
) -> tuple[nn.Module, list[Names]]:
    """The network with its classifier, and the names of its labels."""
    given = None if labels is None else _read(labels)
    net = create(arch, weights, None if given is None or weights is True else len(given))
    if net.num_classes < 1:
        raise BadInput(
            f"{arch} has no classifier", try_="choose one that has, or train heads on it"
        )
    if given is None:
        return net, names_of(arch, net)
    if len(given) != net.num_classes:
        raise BadInput(f"{arch} has {net.num_classes} labels", got=f"{len(given)} names")
    return net, [(label,) for label in given]


def create(arch: str, weights: bool | str | PathLike[str], classes: int | None = None) -> Any:
    """timm's network with these weights and so many classes; its own number where none is said."""
    import timm

    name = arch.removeprefix("timm/")
    if not timm.is_model(name):
        raise BadInput("unknown timm model", got=name, available=timm.list_models())
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    try:
        net = timm.create_model(name, pretrained=weights is True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if weights is not True:
            raise
        raise Failed(
            f"{arch}: its weights cannot be fetched ({str(error).splitlines()[0][:120]}); "
            "try: weights=FILE, a safetensors file or a state dict"
        ) from None
    if not isinstance(weights, bool):
        load_weights(net, arch, Path(weights))
    return net


def pixels_of(net: Any) -> Pixels:
    """What the checkpoint does to an image: shorter side to size/crop, middle cut out."""
    config = net.pretrained_cfg
    channels, height, width = config["input_size"]
    if channels != 3:
        raise BadInput("expected a model of colour images", got=f"{channels} channels")
    fit = FITS.get(config.get("crop_mode") or "center", "crop")
    share = config.get("crop_pct") or CROP
    margin = max(0, math.floor(min(height, width) / share) - min(height, width))
    mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
    return Pixels((height, width), fit, margin, 0, mean, std)  # type: ignore[arg-type]


def match(task: Task, names: Sequence[Names]) -> dict[str, tuple[int, ...]]:
    """For each class the labels that have its name: none, one, or several of one name."""
    by_name: dict[str, list[int]] = {}
    for i, label in enumerate(names):
        for name in dict.fromkeys(normal(name) for name in label):
            by_name.setdefault(name, []).append(i)
    return {name: tuple(by_name.get(normal(name), ())) for name in task.classes}


def chosen(logits_BL: Tensor, places_CN: Tensor) -> Tensor:
    """Logits of classes: of several labels of one name log Σ exp, of none NEVER."""
    none = logits_BL.new_full((len(logits_BL), 1), float("-inf"))
    padded = torch.cat([logits_BL, none], 1)
    return padded[:, places_CN].logsumexp(2).clamp(min=NEVER)


def _one(
    net: nn.Module,
    card: Card,
    images: Split,
    matched: Mapping[str, Mapping[str, tuple[int, ...]]],
    batch: int,
    track: Track | None,
) -> list[TaskResult]:
    """One domain's split through the network."""
    like = next(net.parameters())
    batches = plan(card, len(images), images.name, batch=batch)
    scores = {task.name: scores_of(task) for task in card.tasks}
    places = {name: _places(net, found).to(like.device) for name, found in matched.items()}
    for pixels, targets in read_ahead(images, batches):
        logits = net(pixels.to(like.device, like.dtype, non_blocking=True)).float()
        for name, score in scores.items():
            score.update(chosen(logits, places[name]), targets[name])
        if track is not None:
            track(len(pixels))
    order = np.arange(len(images))
    evaluated = [
        TaskResult(card.name, card.task(name), images, s, order) for name, s in scores.items()
    ]
    for one in evaluated:
        finite(one)
    return evaluated


def _places(net: Any, found: Mapping[str, tuple[int, ...]]) -> Tensor:
    """(classes, most labels of one): labels' numbers, filled up with that of no label."""
    wide = max(map(len, found.values()))
    rows = [[*labels, *[net.num_classes] * (wide - len(labels))] for labels in found.values()]
    return torch.tensor(rows)


def _read(labels: Labels) -> list[str]:
    if not isinstance(labels, str | PathLike):
        return [str(label) for label in labels]
    try:
        lines = Path(labels).read_text("utf-8").splitlines()
    except OSError as error:
        raise BadInput("labels: cannot read the file", got=error.strerror) from None
    except UnicodeDecodeError:
        raise BadInput("labels: the file is not UTF-8", try_="one name a line") from None
    return [line.strip() for line in lines if line.strip()]


def names_of(arch: str, net: Any) -> list[Names]:
    """Names of the labels that a model of this many is known to have."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    own = net.pretrained_cfg.get("label_names")
    if own and len(own) == net.num_classes:
        return [(str(name),) for name in own]
    subset = infer_imagenet_subset(net)
    if subset is None:
        raise BadInput(
            f"{arch}: its {net.num_classes} labels have no names here",
            try_="labels=FILE, one name a line, says what they are",
        )
    known: Any = ImageNetInfo(subset)
    described = known.label_descriptions()
    return [
        (text, *(part.strip() for part in text.split(",")), synset)
        for text, synset in zip(described, known.label_names(), strict=True)
    ]


def _said(places: Sequence[int], names: Sequence[Names]) -> str:
    """Each label by its shortest story: of ImageNet's the first of its names."""
    return " + ".join(names[i][min(1, len(names[i]) - 1)] for i in places)
