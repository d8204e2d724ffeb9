"""Prediction on images as they come: files, pictures, arrays, folders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from onetrunk.data.files.paths import IMAGE_ENDINGS
from onetrunk.data.pixels import BadImage, Raw
from onetrunk.data.task import Task
from onetrunk.errors import BadInput

if TYPE_CHECKING:
    from onetrunk.nn.universal import Universal

Images = Raw | Sequence[Raw]
Prediction = dict[
    str, Any
]  # by task: {"label", "score", "scores"}, {"values"}, {"map"}, {"vector"}

BATCH = 64
FEWEST = 8  # images of a domain that a norm without kept statistics needs


def predict(model: Universal, images: Images, domain: str | Sequence[str]) -> Any:
    """One answer for one image, else a list of predictions: each domain by its own pixels' contract.

    An answer has one entry a task: classify {"label", "score", "scores"}, multilabel {"labels",
    "scores"}, regress {"values"}, embed {"vector"}, segment {"map", "classes"}, depth and normals
    {"map"}; maps are at the size that the domain's images are brought to.
    """
    several = isinstance(images, list | tuple) or _folder(images)
    several = several or (isinstance(images, np.ndarray) and images.ndim == 4)
    raws = list(_each(images))
    names = [domain] * len(raws) if isinstance(domain, str) else list(domain)
    for name in names:
        if name not in model.domains:
            raise BadInput("unknown domain", got=str(name), available=model.domains)
    if len(names) != len(raws):
        raise BadInput("one domain, or one per image", got=f"{len(names)} for {len(raws)} images")
    if not raws:
        raise BadInput("expected at least one image", got="none")
    if model.trunk.norm == "shared-batch":
        for name in sorted(set(names)):
            if names.count(name) < FEWEST:
                raise BadInput(
                    f"the norm 'shared-batch' keeps no statistics: it needs at least {FEWEST} images "
                    "of a domain at once",
                    got=f"{names.count(name)} of {name}",
                )
    predictions: list[Prediction] = [{} for _ in raws]
    was = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for places in _batches(model, names):
            tensors = [_prepare(model, raws[i], names[i], i) for i in places]
            with torch.inference_mode():
                out = model(torch.stack(tensors), [names[i] for i in places])
            for i, tasks in zip(places, out, strict=True):
                card = model.domains[names[i]]
                predictions[i] = {
                    task.name: prediction(task, tasks[task.name]) for task in card.tasks
                }
    finally:
        for module, mode in was:
            module.training = mode
    return predictions if several else predictions[0]


def prediction(task: Task, out: Tensor) -> dict[str, Any]:
    """One image's output in a task's own words."""
    out = out.detach().float().cpu()
    if task.kind == "classify":
        scores = out.softmax(0)
        best = int(scores.argmax())
        by_name = dict(zip(task.classes, scores.tolist(), strict=True))
        return {"label": task.classes[best], "score": float(scores[best]), "scores": by_name}
    if task.kind == "multilabel":
        by_name = dict(zip(task.classes, out.sigmoid().tolist(), strict=True))
        return {"labels": [n for n, score in by_name.items() if score >= 0.5], "scores": by_name}
    if task.kind == "regress":
        return {"values": out.tolist()}
    if task.kind == "embed":
        return {"vector": out.numpy()}
    if task.kind == "segment":
        return {"map": out.argmax(0).to(torch.uint8).numpy(), "classes": task.classes}
    if task.kind == "depth":
        return {"map": out[0].numpy()}
    return {"map": out.permute(1, 2, 0).numpy()}


def _batches(model: Universal, names: list[str]) -> Iterator[list[int]]:
    """Places of images that go together: of one size, at most BATCH, evenly filled."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, name in enumerate(names):
        by_size.setdefault(model.domains[name].pixels.size, []).append(i)
    for places in by_size.values():
        places.sort(key=lambda i: names[i])
        count = 1 if model.trunk.norm == "shared-batch" else math.ceil(len(places) / BATCH)
        yield from (part.tolist() for part in np.array_split(np.array(places), count))


def _prepare(model: Universal, raw: Raw, name: str, place: int) -> Tensor:
    try:
        pixels = model.domains[name].pixels.prepare([raw])[0]
    except BadImage as error:
        known = Path(raw).name if isinstance(raw, str | PathLike) else f"image {place}"
        raise BadInput(f"{known} cannot be read", got=str(error)) from None
    like = next(model.parameters())
    return pixels.to(device=like.device, dtype=like.dtype)


def _folder(images: object) -> bool:
    return isinstance(images, str | PathLike) and Path(images).is_dir()


def _each(images: Images) -> Iterator[Raw]:
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, list | tuple):
        for one in images:
            yield from _each(one)
    elif isinstance(images, str | PathLike) and _folder(images):
        files = sorted(p for p in Path(images).rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
        if not files:
            raise BadInput("the folder holds no image", got=str(images))
        yield from files
    elif isinstance(images, str | PathLike | bytes | Image.Image | np.ndarray):
        yield images
    else:
        raise BadInput(
            "expected paths, pictures or arrays",
            got=type(images).__name__,
            try_="model(tensor, domain=…) takes normalized tensors",
        )
