"""Predictions for the withheld test images of the Visual Decathlon, in its server's format.

One list over all domains, in the format of COCO: {"image_id": …, "category_id": …} for every test
image, in a file results.json that is sent as a ZIP. Categories are the ids in the annotations, not
class indices. The page of the challenge (Rebuffi, Bilen & Vedaldi 2017) names the file and the
ZIP; the keys are those of published code. The format has not been tried on the server itself.
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
    distinct_domains,
    inference,
    model_for,
    plan_batches,
    read_ahead,
)
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.store.atomic import write_atomic

OFFICIAL_NAMES = (
    *("aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb"),
    *("imagenet12", "omniglot", "svhn", "ucf101", "vgg-flowers"),
)
FILE_IN_ZIP = "results.json"
ENDINGS = (".json", ".zip")


@dataclass(frozen=True)
class Results:
    """Predicted categories.

    `categories`: by official domain name, the category's id by the image's id.
    """

    categories: Mapping[str, Mapping[int, int]]

    def __len__(self) -> int:
        return sum(len(by_image) for by_image in self.categories.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The official domains without predictions."""
        return tuple(name for name in OFFICIAL_NAMES if name not in self.categories)

    def to_json(self) -> list[dict[str, int]]:
        """Return the list that the server reads, one domain after another, by image id."""
        return [
            {"image_id": image, "category_id": category}
            for by_image in self.categories.values()
            for image, category in sorted(by_image.items())
        ]

    def write(self, path: Path) -> None:
        """Write the results as JSON, or, if the path ends in .zip, as a ZIP for the server."""
        check_ending(path)
        content = json.dumps(self.to_json()).encode()
        if path.suffix.lower() == ".zip":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                entry = zipfile.ZipInfo(FILE_IN_ZIP)  # without a date: equal results, equal files
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
            content = buffer.getvalue()
        write_atomic(path, content)


def check_ending(path: Path) -> None:
    """Refuse a file name whose ending is not a format of results."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(
            "expected a file name for results", got=path.name, available=[f"*{e}" for e in ENDINGS]
        )


def decathlon_results(
    model: Models, domains: Sequence[Domain], device: torch.device | str | None = None
) -> Results:
    """Predict the category of every test image of these domains, each from a `decathlon:` source.

    Unreadable images and image ids that two domains share are refused before anything is predicted.
    """
    jobs = [(d, _source_of(d), model_for(model, d.name)) for d in distinct_domains(domains)]
    _check_ids(jobs)
    categories: dict[str, dict[int, int]] = {}
    splits = [split_for(domain, own.domains[domain.name], "test") for domain, _, own in jobs]
    with Track("predicting test", sum(map(len, splits))) as track:
        for (domain, source, domain_model), images in zip(jobs, splits, strict=True):
            with inference(domain_model, device):
                predicted = _predict_classes(domain_model, domain.name, images, track)
            image_ids, category_ids = source.test_ids(), source.category_ids()
            classes = _classify_task(domain_model, domain.name).classes
            categories[source.domain] = {
                image_ids[images.key(i)]: category_ids[classes[int(c)]]
                for i, c in enumerate(predicted)
            }
    return Results(categories)


def _source_of(domain: Domain) -> Decathlon:
    if not isinstance(domain.opened, Decathlon):
        raise BadInput(
            f"{domain.name}: expected a domain of the Visual Decathlon",
            got=str(domain.source),
            try_="decathlon:ROOT/NAME",
        )
    return domain.opened


def _classify_task(model: Universal, domain: str) -> Task:
    for task in model.domains[domain].tasks:
        if task.kind == "classify":
            return task
    kinds = ", ".join(task.kind for task in model.domains[domain].tasks)
    raise BadInput(f"{domain}: expected a model with a classify task", got=kinds)


def _check_ids(jobs: Sequence[tuple[Domain, Decathlon, Universal]]) -> None:
    """Refuse classes that are not categories, unreadable images, and ids of two domains."""
    domain_of_id: dict[int, str] = {}
    for domain, source, model in jobs:
        categories = source.category_ids()
        unknown = [c for c in _classify_task(model, domain.name).classes if c not in categories]
        if unknown:
            raise BadInput(
                f"{domain.name}: a class is not a category of the challenge",
                got=unknown[0],
                available=categories,
            )
        unreadable = [domain.index.keys[int(row)] for row in domain.bad("test")]
        if unreadable:
            raise BadInput(
                f"{domain.name}: the server needs a prediction for every test image, and "
                f"{len(unreadable)} cannot be read",
                got=shorten(unreadable, 3),
                try_="unpack them again",
            )
        for image_id in source.test_ids().values():
            other = domain_of_id.setdefault(image_id, domain.name)
            if other != domain.name:
                raise BadInput(
                    "expected each image id in one domain, because the results are one list",
                    got=f"{image_id} in {other} and {domain.name}",
                    try_="one of them at a time: --domain NAME",
                )


def _predict_classes(
    model: Universal, domain: str, images: Split, track: Track
) -> NDArray[np.int64]:
    """Return the index of the predicted class of every image of a split, in its order."""
    task = _classify_task(model, domain).name
    batches = plan_batches(model.domains[domain], len(images), "test", model.trunk.norm_method)
    predicted = np.zeros(len(images), np.int64)
    like = next(model.parameters())
    for places, (pixels, _) in zip(batches, read_ahead(images, batches), strict=True):
        x = pixels.to(device=like.device, dtype=like.dtype)
        logits = model(x, domain=domain)[task].float()
        if not torch.isfinite(logits).all():
            first = int((~torch.isfinite(logits).all(1)).nonzero()[0])
            name = printable(images.key(int(places[first])))
            raise Failed(f"{domain}/{task}: the model's outputs are not finite for {name}")
        predicted[places] = logits.argmax(1).cpu().numpy()
        track(len(places))
    return predicted
