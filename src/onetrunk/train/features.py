"""The pooled features of a split, computed once and kept in a memory-mapped file of the run.

`features/DOMAIN/SPLIT.f32` holds one row per image; `SPLIT.json` beside it says how many rows are
complete and which weights they depend on, so a killed run continues after the last of them. Rows
are written to the file, not through the memory map, where a full disk would kill the process without
an error. A finished run does not need the files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.data.split import Split
from onetrunk.errors import Failed
from onetrunk.eval.evaluate import evaluating, plan, read_ahead
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.interrupt import Stop, stopped

FOLDER = "features"
EVERY = 10.0  # seconds between saves: the work that a kill can lose
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """The features of a split; row i is of the image at places[i]."""

    rows: F32  # (n, C), memory-mapped
    places: NDArray[np.int64]
    batches: tuple[slice, ...]  # the rows of each forward pass
    seconds: float  # that computing them took
    digest: str  # of what they depend on


@dataclass
class _Done:
    """The finished rows of a file."""

    rows: int = 0
    width: int = 0
    seconds: float = 0.0


def compute_features(
    model: Universal, domain: Domain, split: str, run: RunFolder, stop: Stop
) -> Features:
    """Return the features of a split, without augmentation, in the batches of an evaluation."""
    card = model.domains[domain.name]
    images = split_for(domain, card, split)
    parts = plan(card, len(images), split, model.trunk.norm == "shared-batch") if images else []
    path = run.path / FOLDER / domain.name / f"{split}.f32"
    digest = digest_of(model, domain.name)
    done = _finished(path, digest)
    ends = np.cumsum([0, *map(len, parts)])
    first = int(np.searchsorted(ends, done.rows, "right")) - 1  # the batch to continue with
    if first < len(parts):
        _compute(model, domain.name, images, parts, first, path, done, digest, run, stop)
    shape = (int(ends[-1]), done.width)
    rows = np.memmap(path, "<f4", "r", shape=shape) if shape[0] else np.zeros(shape, "<f4")
    places = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    batches = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
    return Features(rows, places, batches, done.seconds, digest)


def _compute(
    model: Universal,
    name: str,
    images: Split,
    parts: Sequence[NDArray[np.int64]],
    first: int,
    path: Path,
    done: _Done,
    digest: str,
    run: RunFolder,
    stop: Stop,
) -> None:
    """Write the features of the batches from `first` on; update `done`."""
    ends = np.cumsum([0, *map(len, parts)])
    path.parent.mkdir(parents=True, exist_ok=True)
    if not first:
        path.with_suffix(".json").unlink(missing_ok=True)
    like = next(model.parameters())
    before = done.seconds
    began = saved = time.monotonic()
    with (
        run.writing(f"the features of {name}"),
        path.open("r+b" if first else "wb") as file,
        evaluating(model),
        Track(f"features of {name}, {images.name}", int(ends[-1])) as track,
    ):
        track(int(ends[first]))
        file.truncate(int(ends[first]) * done.width * 4)
        file.seek(0, os.SEEK_END)
        for number, (pixels, _) in enumerate(read_ahead(images, parts[first:]), first + 1):
            x = pixels.to(device=like.device, dtype=like.dtype, non_blocking=True)
            with model.trunk.switch.using(name):
                pooled, _ = model.trunk(x)
            rows_BC = pooled.float().cpu().numpy()
            finite = np.isfinite(rows_BC).all(1)
            if not finite.all():
                bad = int(parts[number - 1][~finite][0])
                raise Failed(
                    f"{name}: the trunk's features of {images.key(bad)} are not finite",
                    try_="other weights, or another trunk",
                )
            file.write(rows_BC.astype("<f4").tobytes())
            track(len(rows_BC))
            done.rows, done.width = int(ends[number]), rows_BC.shape[1]
            now = time.monotonic()
            done.seconds = before + now - began
            if now - saved > EVERY or number == len(parts) or stop.requested:
                file.flush()
                os.fsync(file.fileno())
                mark = {"rows": done.rows, "width": done.width, "of": digest}
                mark |= {"seconds": done.seconds}
                write_atomic(path.with_suffix(".json"), json.dumps(mark))
                saved = now
            if stop.requested:
                raise stopped(f"at image {done.rows:,} of {name}'s features", run.path)


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


def _finished(path: Path, digest: str) -> _Done:
    """Return what of a file is intact and of these weights; nothing if that is unknown."""
    try:
        mark: Mapping[str, Any] = json.loads(path.with_suffix(".json").read_text("utf-8"))
        done = _Done(int(mark["rows"]), int(mark["width"]), float(mark["seconds"]))
        if mark["of"] == digest and path.stat().st_size >= done.rows * done.width * 4:
            return done
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return _Done()
