"""The proof that nothing else moved: every other domain's outputs, to the bit, before and after.

A print is a SHA-256 over the bytes of all outputs on a domain's first validation images; where its
images cannot be reached (its pack came from elsewhere, its folder is gone), on seeded noise of its
size, which is said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.seeded import seed_of
from onetrunk.errors import Failed, OnetrunkError
from onetrunk.eval.evaluate import inference
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal

IMAGES, NOISE, BATCH = 128, 16, 16  # of validation; of noise; in a pass
VALIDATION, RANDOM = "validation", "random"


@dataclass(frozen=True)
class Print:
    """A domain's outputs as one number, and what they were computed on."""

    sha256: str
    images: int
    of: str  # VALIDATION or RANDOM


@dataclass(frozen=True)
class Proof:
    """The prints of every other domain, equal before and after."""

    prints: Mapping[str, Print]

    def to_json(self) -> dict[str, Any]:
        """As a file keeps it."""
        return {
            name: {"sha256": p.sha256, "images": p.images, "of": p.of}
            for name, p in self.prints.items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Mapping[str, Any]]) -> Proof:
        """What `to_json` gave."""
        return cls({name: Print(**found) for name, found in document.items()})

    @property
    def said(self) -> str:
        """One line for people."""
        if not self.prints:
            return "no other domain is there that could have moved"
        random = [name for name, found in self.prints.items() if found.of == RANDOM]
        more = f"; on random images, as theirs cannot be reached: {', '.join(random)}"
        images = sum(found.images for found in self.prints.values())
        return (
            f"unchanged to the bit: {', '.join(self.prints)} "
            f"(outputs on {images:,} images, before and after{more if random else ''})"
        )


def take(model: Universal, domains: Mapping[str, Domain], but: str) -> dict[str, Print]:
    """The print of every domain of the model except `but`."""
    found: dict[str, Print] = {}
    with inference(model):
        for name in model.domains:
            if name != but:
                found[name] = _print(model, name, domains.get(name))
    return found


def compare(before: Mapping[str, Print], after: Mapping[str, Print], name: str) -> Proof:
    """The proof, or the refusal of what would change another domain."""
    moved = [other for other in before if before[other] != after.get(other)]
    if moved or before.keys() != after.keys():
        raise Failed(
            f"{name} is not added: with it the outputs of {', '.join(moved) or 'others'} are not "
            "the same to the bit; the model in use stays as it was; try: report this as a bug"
        )
    return Proof(dict(after))


def _print(model: Universal, name: str, domain: Domain | None) -> Print:
    if domain is not None:
        try:
            return _digest(model, name, _validation(model, name, domain), VALIDATION)
        except (OnetrunkError, OSError):  # moved, unmounted, not what the model learned
            pass
    return _digest(model, name, _noise(model, name), RANDOM)


def _digest(model: Universal, name: str, batches: Iterator[Tensor], of: str) -> Print:
    digest, images = hashlib.sha256(), 0
    like = next(model.parameters())
    for pixels in batches:
        outputs = model(pixels.to(device=like.device, dtype=like.dtype), domain=name)
        for task, value in sorted(outputs.items()):
            plain = value.detach().cpu().contiguous()
            digest.update(json.dumps([task, str(plain.dtype), list(plain.shape)]).encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        images += len(pixels)
    return Print(digest.hexdigest(), images, of)


def _validation(model: Universal, name: str, domain: Domain) -> Iterator[Tensor]:
    split = split_for(domain, model.domains[name], "val", quiet=True)
    count = min(IMAGES, len(split))
    if not count:
        raise Failed(f"{name} has no validation image")
    for start in range(0, count, BATCH):
        yield split.batch(np.arange(start, min(start + BATCH, count)))[0]


def _noise(model: Universal, name: str) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(seed_of("proof", name) >> 1)
    height, width = model.domains[name].pixels.size
    yield torch.randn(NOISE, 3, height, width, generator=chance)
