"""A split's pooled features, computed once, in a file of the run that is mapped into memory.

`features/DOMAIN/SPLIT.f32` holds one row an image, `SPLIT.json` beside it how many of them are
whole and what they are of: a killed run goes on after the last of those. They are written as any
file is, not through the map, where a full disk would end the process without a word. Once a run is
finished nothing needs them any more.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onetrunk.data.domain import Domain
from onetrunk.errors import Failed
from onetrunk.eval.evaluate import evaluating, plan, read_ahead
from onetrunk.eval.model_split import split_for
from onetrunk.nn.universal import Universal
from onetrunk.progress import Track
from onetrunk.store.atomic import write_atomic
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.interrupt import Stop, stopped

FOLDER = "features"
EVERY = 10.0  # seconds of work that a kill costs
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Row i is of the image at places[i] of the split; `batches`: the rows of each pass."""

    rows: F32  # (n, C), mapped
    places: NDArray[np.int64]
    batches: tuple[slice, ...]
    seconds: float  # that they took
    digest: str  # of what they depend on


def features_of(
    model: Universal, domain: Domain, split: str, run: RunFolder, stop: Stop
) -> Features:
    """The features of a split as evaluation sees it, no image varied, in evaluation's batches."""
    card = model.domains[domain.name]
    images = split_for(domain, card, split)
    parts = plan(card, len(images), split, model.trunk.norm_method) if images else []
    path = run.path / FOLDER / domain.name / f"{split}.f32"
    digest = digest_of(model, domain.name)
    done = _done(path, digest)
    width, seconds = int(done.get("width", 0)), float(done.get("seconds", 0))
    ends = np.cumsum([0, *map(len, parts)])
    first = int(np.searchsorted(ends, done.get("rows", 0), "right")) - 1  # batch to go on with
    if first < len(parts):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not first:
            path.with_suffix(".json").unlink(missing_ok=True)
        like = next(model.parameters())
        began = saved = time.monotonic()
        with (
            run.writing(f"the features of {domain.name}"),
            path.open("r+b" if first else "wb") as file,
            evaluating(model),
            Track(f"features of {domain.name}, {split}", int(ends[-1])) as track,
        ):
            track(int(ends[first]))
            file.truncate(int(ends[first]) * width * 4)
            file.seek(0, os.SEEK_END)
            for number, (pixels, _) in enumerate(read_ahead(images, parts[first:]), first + 1):
                x = pixels.to(device=like.device, dtype=like.dtype, non_blocking=True)
                with model.trunk.switch.using(domain.name):
                    pooled, _ = model.trunk(x)
                found = pooled.float().cpu().numpy()
                width = found.shape[1]
                if not np.isfinite(found).all():
                    bad = int(parts[number - 1][~np.isfinite(found).all(1)][0])
                    raise Failed(
                        f"{domain.name}: the trunk's features of {images.key(bad)} are not finite; "
                        "try: other weights, or another trunk"
                    )
                file.write(found.astype("<f4").tobytes())
                track(len(found))
                now = time.monotonic()
                if now - saved > EVERY or number == len(parts) or stop.asked:
                    file.flush()
                    os.fsync(file.fileno())
                    spent = seconds + now - began
                    mark = {"rows": int(ends[number]), "width": width, "of": digest}
                    write_atomic(path.with_suffix(".json"), json.dumps({**mark, "seconds": spent}))
                    saved = now
                if stop.asked:
                    raise stopped(
                        f"at image {ends[number]:,} of {domain.name}'s features", run.path
                    )
        seconds += time.monotonic() - began
    shape = (int(ends[-1]), width)
    rows = np.memmap(path, "<f4", "r", shape=shape) if shape[0] else np.zeros(shape, "<f4")
    places = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    batches = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
    return Features(rows, places, batches, seconds, digest)


def digest_of(model: Universal, name: str) -> str:
    """Of everything between this domain's normalized images and its pooled features."""
    slots = {k: v for k, v in model.own(name).items() if not k.startswith("heads/")}
    digest = hashlib.sha256(model.trunk.fingerprint().encode())
    digest.update(json.dumps(model.domains[name].pixels.to_json(), sort_keys=True).encode())
    for key, tensor in sorted(slots.items()):
        digest.update(key.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _done(path: Path, digest: str) -> Mapping[str, Any]:
    """What of a file is whole and of this trunk; nothing where that cannot be known."""
    try:
        mark = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if mark["of"] == digest and path.stat().st_size >= mark["rows"] * mark["width"] * 4:
            found: Mapping[str, Any] = mark
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}
