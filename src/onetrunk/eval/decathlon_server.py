"""Predictions for the withheld test images of the Visual Decathlon, as its server takes them.

One list over all domains, in COCO's form: {"image_id": …, "category_id": …} for every test image,
called results.json and sent as a ZIP. Categories are the annotations' own ids, never our places.
The page of the challenge (Rebuffi, Bilen & Vedaldi 2017) names the file and the ZIP; the keys are
those that published code writes. The server itself was not asked.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.sources.decathlon import Decathlon
from onetrunk.data.split import Split
from onetrunk.data.task import Task
from onetrunk.errors import BadInput, Failed, printable, shorten
from onetrunk.eval.evaluate import (
    Models,
    each_once,
    evaluating,
    model_of,
    plan,
    read_ahead,
)
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.store.atomic import write_atomic

TEN = (  # the challenge's own names
    *("aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb"),
    *("imagenet12", "omniglot", "svhn", "ucf101", "vgg-flowers"),
)
RESULTS = "results.json"  # what the file in the ZIP is called
ENDINGS = (".json", ".zip")


@dataclass(frozen=True)
class Results:
    """What one would send in."""

    categories: Mapping[str, Mapping[int, int]]  # by official domain: image's id -> category's id

    def __len__(self) -> int:
        return sum(len(found) for found in self.categories.values())

    @property
    def lacking(self) -> tuple[str, ...]:
        """The domains of the ten that have no predictions."""
        return tuple(name for name in TEN if name not in self.categories)

    def to_json(self) -> list[dict[str, int]]:
        """Images in the order of their ids, domain after domain."""
        return [
            {"image_id": image, "category_id": category}
            for found in self.categories.values()
            for image, category in sorted(found.items())
        ]

    def write(self, path: Path) -> None:
        """The JSON file, or by its ending the ZIP that the server takes."""
        check_ending(path)
        text = json.dumps(self.to_json()).encode()
        if path.suffix.lower() == ".zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                entry = zipfile.ZipInfo(RESULTS)  # of no date: the same predictions, the same file
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
            text = packed.getvalue()
        write_atomic(path, text)


def check_ending(path: Path) -> None:
    """Before hours of prediction: whether the file's name says what it is to be."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(
            "results are written as", got=path.name, available=[f"*{e}" for e in ENDINGS]
        )


def decathlon_results(
    model: Models, domains: Sequence[Domain], device: torch.device | str | None = None
) -> Results:
    """The model's class for every test image of these domains, each from a `decathlon:` source.

    An image that cannot be read would lack its answer, and an id that two domains share would have
    two: both are refused before anything is predicted.
    """
    todo = [(d, _source(d), model_of(model, d.name)) for d in each_once(domains)]
    _check_ids(todo)
    found: dict[str, dict[int, int]] = {}
    parts = [split_for(domain, own.domains[domain.name], "test") for domain, _, own in todo]
    with Track("predicting test", sum(map(len, parts))) as track:
        for (domain, source, own), images in zip(todo, parts, strict=True):
            with evaluating(own, device):
                best = _classes(own, domain.name, images, track)
            ids, categories = source.test_ids(), source.category_ids()
            classes = _task(own, domain.name).classes
            found[source.domain] = {
                ids[images.key(i)]: categories[classes[int(c)]] for i, c in enumerate(best)
            }
    return Results(found)


def _source(domain: Domain) -> Decathlon:
    """Its source, which has to be one of the challenge's."""
    if not isinstance(domain.opened, Decathlon):
        raise BadInput(
            f"{domain.name}: only a domain of the Visual Decathlon has a withheld test",
            got=str(domain.source),
            try_="decathlon:ROOT/NAME",
        )
    return domain.opened


def _task(model: Universal, name: str) -> Task:
    """The task that says the class."""
    for task in model.domains[name].tasks:
        if task.kind == "classify":
            return task
    kinds = ", ".join(task.kind for task in model.domains[name].tasks)
    raise BadInput(f"{name}: the model has no task that says a class", got=kinds)


def _check_ids(todo: Sequence[tuple[Domain, Decathlon, Universal]]) -> None:
    owner: dict[int, str] = {}
    for domain, source, own in todo:
        known = source.category_ids()
        strange = [c for c in _task(own, domain.name).classes if c not in known]
        if strange:
            raise BadInput(
                f"{domain.name}: no category of that name", got=strange[0], available=known
            )
        lost = [domain.index.keys[int(row)] for row in domain.bad("test")]
        if lost:
            raise BadInput(
                f"{domain.name}: {len(lost)} test images cannot be read, and the server wants an "
                "answer for each",
                got=shorten(lost, 3),
                try_="unpack them again",
            )
        for number in source.test_ids().values():
            if owner.setdefault(number, domain.name) != domain.name:
                raise BadInput(
                    "two domains have a test image of the same id, so one list cannot answer both",
                    got=f"{number} in {owner[number]} and {domain.name}",
                    try_="one of them at a time: --domain NAME",
                )


def _classes(model: Universal, name: str, images: Split, track: Track) -> NDArray[np.int64]:
    """The place of the best class for every image of a split, in its order."""
    task = _task(model, name).name
    batches = plan(model.domains[name], len(images), "test", model.trunk.norm == "shared-batch")
    best = np.zeros(len(images), np.int64)
    like = next(model.parameters())
    for places, (pixels, _) in zip(batches, read_ahead(images, batches), strict=True):
        logits = model(pixels.to(device=like.device, dtype=like.dtype), domain=name)[task].float()
        if not torch.isfinite(logits).all():
            bad = int((~torch.isfinite(logits).all(1)).nonzero()[0])
            first = printable(images.key(int(places[bad])))
            raise Failed(f"{name}/{task}: the model's outputs are not finite for {first}")
        best[places] = logits.argmax(1).cpu().numpy()
        track(len(places))
    return best
