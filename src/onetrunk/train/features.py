"""The pooled features of a split, computed once and kept in a memory-mapped file of the run.

The file `features/DOMAIN/SPLIT.rows` holds one row per image. A killed run continues after the rows
that were saved. A finished run does not need the files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.errors import BadInput, Failed
from onetrunk.eval.evaluate import inference, plan_batches, read_ahead
from onetrunk.eval.model_split import split_for
from onetrunk.nn.heads import Embed
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.store.run_folder import RunFolder
from onetrunk.store.tensors import RowSpec, RowsWriter, read_rows
from onetrunk.train.interrupt import Stop, stopped

FOLDER = "features"
EVERY = 10.0  # seconds between saves; a killed run loses at most this much work
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """The features of a split; row i is of the image at places[i]."""

    rows: F32  # (n, C), memory-mapped
    places: NDArray[np.int64]
    batches: tuple[slice, ...]  # the rows of each forward pass
    seconds: float  # of computation since the run was last started
    digest: str = ""  # of everything that they depend on, except images

    @classmethod
    def of(
        cls, rows: F32, parts: Sequence[NDArray[np.int64]], seconds: float = 0.0, digest: str = ""
    ) -> Features:
        """Return features by the places of the images of each forward pass."""
        ends = np.cumsum([0, *map(len, parts)])
        places = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        batches = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
        return cls(rows, places, batches, seconds, digest)


def compute_features(
    model: Universal, domain: Domain, split: str, run: RunFolder, stop: Stop
) -> Features:
    """Return the features of a split, without augmentation, in the batches of an evaluation."""
    card = model.domains[domain.name]
    images = split_for(domain, card, split)
    parts = plan_batches(card, len(images), split, model.trunk.norm_method) if images else []
    path = run.path / FOLDER / domain.name / f"{split}.rows"
    digest = digest_of(model, domain.name)
    began = time.monotonic()
    if parts and not _is_current(path, digest):
        _compute(model, domain.name, images, parts, path, digest, run, stop)
    rows = read_rows(path)[1]["features"] if parts else np.zeros((0, 0), np.float32)
    return Features.of(rows, parts, time.monotonic() - began, digest)


def _compute(
    model: Universal,
    name: str,
    images: Split,
    parts: Sequence[NDArray[np.int64]],
    path: Path,
    digest: str,
    run: RunFolder,
    stop: Stop,
) -> None:
    """Write the features that are not on disk yet; `parts` are the places of each batch."""
    ends = np.cumsum([0, *map(len, parts)])
    heads, tasks = model.heads_of(name), model.domains[name].tasks
    width = next(linear_of(heads.head(task.name)) for task in tasks if not task.dense).in_features
    rows: dict[str, RowSpec] = {"features": ("F32", (width,))}
    with (
        run.writing(f"the features of {name}"),
        RowsWriter(path, rows, int(ends[-1]), digest) as file,
        inference(model),
        Track(f"features of {name}, {images.name}", file.count) as track,
    ):
        first = int(np.searchsorted(ends, file.done, "right")) - 1  # the batch to continue with
        file.done = int(ends[first])
        track(file.done)
        saved = time.monotonic()
        pooled = pooled_features(model, name, images, parts[first:])
        for part, rows_BC in zip(parts[first:], pooled, strict=True):
            finite = np.isfinite(rows_BC).all(1)
            if not finite.all():
                raise Failed(
                    f"{name}: the trunk's features of {images.key(int(part[~finite][0]))} are not "
                    "finite",
                    try_="other weights, or another trunk",
                )
            file.write({"features": rows_BC})
            track(len(rows_BC))
            if stop.requested or time.monotonic() - saved > EVERY:
                file.keep()
                saved = time.monotonic()
            if stop.requested:
                raise stopped(f"at image {file.done:,} of {name}'s features", run.path)
        file.finish()


def pooled_features(
    model: Universal, name: str, images: Split, parts: Sequence[NDArray[np.int64]]
) -> Iterator[F32]:
    """Yield the features of each batch; `parts` are the places of its images."""
    like = next(model.parameters())
    for pixels, _ in read_ahead(images, parts):
        x = pixels.to(device=like.device, dtype=like.dtype, non_blocking=True)
        with model.trunk.switch.using(name):
            pooled, _ = model.trunk(x)
        rows: F32 = pooled.float().cpu().numpy()
        yield rows


def linear_of(head: nn.Module) -> nn.Linear:
    """Return the linear layer of a head on pooled features."""
    linear = head.linear if isinstance(head, Embed) else head
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"not a linear head: {type(head).__name__}")
    return linear


def digest_of(model: Universal, name: str) -> str:
    """Return a hash of everything that this domain's pooled features depend on, except images."""
    slots = {k: v for k, v in model.own(name).items() if not k.startswith("heads/")}
    digest = hashlib.sha256(model.trunk.fingerprint().encode())
    digest.update(json.dumps(model.domains[name].pixels.to_json(), sort_keys=True).encode())
    for key, tensor in sorted(slots.items()):
        digest.update(key.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_current(path: Path, digest: str) -> bool:
    """Return whether a finished file holds features of these weights."""
    try:
        return read_rows(path)[0] == digest
    except BadInput:  # absent or damaged
        return False
