"""Check that the outputs of all other domains are equal to the bit before and after a change.

A fingerprint is the SHA-256 of all outputs on a domain's first validation images. If these cannot
be read, because the pack was imported or the folder is missing, the outputs on seeded noise are
used, and the result lists the domain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.errors import Failed, OnetrunkError
from onetrunk.eval.evaluate import inference
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track

MAX_IMAGES, NOISE_IMAGES, BATCH = 128, 16, 16
Inputs = Literal["validation", "random"]


@dataclass(frozen=True)
class Fingerprint:
    """The hash of a domain's outputs, and the number and kind of the images."""

    sha256: str
    images: int
    inputs: Inputs


@dataclass(frozen=True)
class Unchanged:
    """The fingerprints of all other domains, which are equal before and after."""

    fingerprints: Mapping[str, Fingerprint]

    def to_json(self) -> dict[str, Any]:
        """Return the fingerprints as plain data."""
        return {name: asdict(each) for name, each in self.fingerprints.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Mapping[str, Any]]) -> Unchanged:
        """Return the result in the output of `to_json`."""
        return cls({name: Fingerprint(**each) for name, each in document.items()})

    def __str__(self) -> str:
        if not self.fingerprints:
            return "there are no other domains"
        random = [name for name, each in self.fingerprints.items() if each.inputs == "random"]
        more = (
            f"; on random images, as their own cannot be read: {', '.join(random)}"
            if random
            else ""
        )
        images = sum(each.images for each in self.fingerprints.values())
        return (
            f"unchanged to the bit: {', '.join(self.fingerprints)} "
            f"(outputs on {images:,} images, before and after{more})"
        )


def fingerprints(
    model: Universal, domains: Mapping[str, Domain], without: str
) -> dict[str, Fingerprint]:
    """Return the fingerprint of every domain of the model except `without`.

    Args:
        model: The network.
        domains: The domains whose images are known.
        without: The domain that is added, changed or removed.
    """
    others = [name for name in model.domains if name != without]
    about = "outputs of the other domains, to check that they stay unchanged"
    found = {}
    with inference(model), Track(about, len(others)) as track:
        for name in others:
            found[name] = _fingerprint(model, name, domains.get(name))
            track()
    return found


def check_unchanged(
    before: Mapping[str, Fingerprint], after: Mapping[str, Fingerprint], name: str
) -> Unchanged:
    """Compare fingerprints, and raise Failed if a domain other than `name` has changed."""
    changed = [other for other in before if before[other] != after.get(other)]
    if changed or before.keys() != after.keys():
        raise Failed(
            f"{name} is not put into use, as it would change the outputs of "
            f"{', '.join(changed) or 'other domains'}; the model is unchanged",
            try_="report this as a bug",
        )
    return Unchanged(dict(after))


def _fingerprint(model: Universal, name: str, domain: Domain | None) -> Fingerprint:
    if domain is not None:
        try:
            return _digest(model, name, _validation(model, name, domain), "validation")
        except (OnetrunkError, OSError):  # moved, unmounted, or with other tasks than the model
            pass
    return _digest(model, name, _noise(model, name), "random")


def _digest(model: Universal, name: str, batches: Iterator[Tensor], inputs: Inputs) -> Fingerprint:
    digest, images = hashlib.sha256(), 0
    like = next(model.parameters())
    for pixels in batches:
        outputs = model(pixels.to(device=like.device, dtype=like.dtype), domain=name)
        for task, value in sorted(outputs.items()):
            plain = value.detach().cpu().contiguous()
            digest.update(json.dumps([task, str(plain.dtype), list(plain.shape)]).encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        images += len(pixels)
    return Fingerprint(digest.hexdigest(), images, inputs)


def _validation(model: Universal, name: str, domain: Domain) -> Iterator[Tensor]:
    split = split_for(domain, model.domains[name], "val", quiet=True)
    count = min(MAX_IMAGES, len(split))
    if not count:
        raise Failed(f"{name} has no validation image")
    for start in range(0, count, BATCH):
        yield split.batch(np.arange(start, min(start + BATCH, count)))[0]


def _noise(model: Universal, name: str) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(seed_of("proof", name) >> 1)
    height, width = model.domains[name].pixels.size
    yield torch.randn(NOISE_IMAGES, 3, height, width, generator=chance)
