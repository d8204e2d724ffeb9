"""Prediction for files, folders, pictures and arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from onetrunk.data.files.paths import IMAGE_ENDINGS
from onetrunk.data.pixels import BadImage, Raw
from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.card import Card
from onetrunk.nn.modes import eval_mode
from onetrunk.nn.norms import Norm

Images = Raw | Sequence[Raw]
Prediction = dict[str, dict[str, Any]]  # by task; see `output_of`

BATCH = 64


def predict(
    model: nn.Module,
    cards: Mapping[str, Card],
    norm: Norm,
    images: Images,
    domain: str | Sequence[str],
) -> Prediction | list[Prediction]:
    """Return the prediction for one image, or a list of them for several or a folder.

    Args:
        model: Called as `model(images, names)` with normalized images of one size.
        cards: The model's domains by name; each domain's pixels prepare its images.
        norm: The norm method, which may need several images of a domain at once.
        domain: The domain of all images, or one name per image.
    """
    several = isinstance(images, list | tuple) or _is_folder(images)
    several = several or (isinstance(images, np.ndarray) and images.ndim == 4)
    raws = list(_each(images))
    names = [domain] * len(raws) if isinstance(domain, str) else list(domain)
    for name in names:
        if name not in cards:
            raise BadInput("unknown domain", got=str(name), available=cards)
    if len(names) != len(raws):
        raise BadInput(
            "expected one domain, or one per image", got=f"{len(names)} for {len(raws)} images"
        )
    if not raws:
        raise BadInput("expected at least one image", got="none")
    for name in sorted(set(names)):
        if names.count(name) < norm.min_images:
            raise BadInput(
                "this norm keeps no statistics, so prediction needs at least "
                f"{norm.min_images} images of a domain at once",
                got=f"{names.count(name)} of {name}",
            )
    like = next(model.parameters())
    predictions: list[Prediction] = [{} for _ in raws]
    with eval_mode(model):
        for places in _batches([cards[name] for name in names], norm):
            pixels = torch.stack([_prepare(cards[names[i]], raws[i], i) for i in places])
            pixels = pixels.to(device=like.device, dtype=like.dtype)
            with torch.inference_mode():
                outputs = model(pixels, [names[i] for i in places])
            for i, output in zip(places, outputs, strict=True):
                tasks = cards[names[i]].tasks
                predictions[i] = {task.name: output_of(task, output[task.name]) for task in tasks}
    return predictions if several else predictions[0]


def output_of(task: Task, output: Tensor) -> dict[str, Any]:
    """Return one image's output in terms of the task.

    classify: {"label", "score", "scores"}; multilabel: {"labels", "scores"}; regress: {"values"};
    embed: {"vector"}; segment: {"map", "classes"}; depth, normals: {"map"}. Maps have the size
    of the domain's images.
    """
    output = output.detach().float().cpu()
    if task.kind == "classify":
        scores = output.softmax(0)
        best = int(scores.argmax())
        by_name = dict(zip(task.classes, scores.tolist(), strict=True))
        return {"label": task.classes[best], "score": float(scores[best]), "scores": by_name}
    if task.kind == "multilabel":
        by_name = dict(zip(task.classes, output.sigmoid().tolist(), strict=True))
        return {"labels": [n for n, score in by_name.items() if score >= 0.5], "scores": by_name}
    if task.kind == "regress":
        return {"values": output.tolist()}
    if task.kind == "embed":
        return {"vector": output.numpy()}
    if task.kind == "segment":
        return {"map": output.argmax(0).to(torch.uint8).numpy(), "classes": task.classes}
    if task.kind == "depth":
        return {"map": output[0].numpy()}
    return {"map": output.permute(1, 2, 0).numpy()}


def _batches(cards: Sequence[Card], norm: Norm) -> Iterator[list[int]]:
    """Yield positions of images of one size, sorted by domain, in similar parts of at most BATCH.

    A norm that uses the statistics of the batch gets all images of a size at once.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, card in enumerate(cards):
        by_size.setdefault(card.pixels.size, []).append(i)
    for places in by_size.values():
        places.sort(key=lambda i: cards[i].name)
        count = 1 if norm.batch_statistics else math.ceil(len(places) / BATCH)
        yield from (part.tolist() for part in np.array_split(np.array(places), count))


def _prepare(card: Card, raw: Raw, place: int) -> Tensor:
    try:
        return card.pixels.prepare([raw])[0]
    except BadImage as error:
        name = Path(raw).name if isinstance(raw, str | PathLike) else f"image {place}"
        raise BadInput(f"{name} cannot be read", got=str(error)) from None


def _is_folder(images: object) -> bool:
    return isinstance(images, str | PathLike) and Path(images).is_dir()


def _each(images: Images) -> Iterator[Raw]:
    """Yield single images; a folder yields its image files, sorted."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _each(image)
    elif isinstance(images, str | PathLike) and _is_folder(images):
        files = sorted(p for p in Path(images).rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
        if not files:
            raise BadInput("the folder has no images", got=str(images))
        yield from files
    elif isinstance(images, str | PathLike | bytes | Image.Image | np.ndarray):
        yield images
    else:
        raise BadInput(
            "expected paths, pictures or arrays",
            got=type(images).__name__,
            try_="model(tensor, domain=…), which takes normalized tensors"
            if isinstance(images, Tensor)
            else "a list of them",
        )
