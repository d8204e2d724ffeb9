"""The splits of a run's images by hash, kept so that they hold when images are added to a source.

`RUN/splits.safetensors`, or `RUN/added/NAME/splits.safetensors` for a domain that was added or
updated later, holds for each domain the hashes of its units (of a path, or of a group) and
their splits: nine bytes per unit. Splits that a source names are not stored, nor is any path.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onetrunk.data.stratified import NOTHING_KNOWN, TEST, KnownSplits
from onetrunk.data.task import check_name
from onetrunk.errors import BadInput
from onetrunk.store.atomic import write_atomic
from onetrunk.store.tensors import KEY, read_header, read_tensors, write_tensors

FILE = "splits.safetensors"
FORMAT = 1
ADDED = "added"  # the folder in a run for domains that were added or updated after the training


def save_splits(folder: Path, by_domain: Mapping[str, KnownSplits]) -> None:
    """Write the splits of the domains into the folder of a run; nothing if no unit has any."""
    tensors: dict[str, Tensor] = {}
    for name, known in by_domain.items():
        if len(known.units):
            tensors[f"{name}/units"] = torch.from_numpy(known.units.astype(np.uint64))
            tensors[f"{name}/codes"] = torch.from_numpy(known.codes.astype(np.uint8))
    if not tensors:
        return
    file = io.BytesIO()
    write_tensors(file, tensors, {KEY: json.dumps({"format": FORMAT})})
    write_atomic(folder / FILE, file.getvalue())


def read_splits(folder: Path) -> dict[str, KnownSplits]:
    """Return the splits by domain in the folder of a run; empty without a file."""
    path = folder / FILE
    try:
        read_header(path).document(path, "splits", FORMAT)
        tensors = {key: tensor.numpy() for key, tensor in read_tensors(path).items()}
        found = {}
        for key in tensors:
            name, _, part = key.rpartition("/")
            units, codes = tensors[f"{check_name(name, 'domain')}/units"], tensors[f"{name}/codes"]
            if (
                part not in ("units", "codes")
                or units.dtype != np.dtype(np.uint64)
                or codes.dtype != np.dtype(np.uint8)
                or units.shape != (len(codes),)
                or codes.max(initial=0) > TEST
            ):
                raise ValueError(f"not a list of splits: {key}")
            found[name] = KnownSplits.of(units, codes)
    except FileNotFoundError:
        return {}
    except (OSError, BadInput, LookupError, ValueError, TypeError) as error:
        raise BadInput(
            f"cannot read {path}, which keeps the images that were trained on out of the test "
            "split",
            got=str(error)[:100],
            try_="restore it from a copy of the run, or train again",
        ) from None
    return found


def splits_of(run: Path, name: str) -> KnownSplits:
    """Return the splits of a domain in a run: as it was added or updated last, else as trained."""
    added = read_splits(run / ADDED / name)
    return added[name] if name in added else read_splits(run).get(name, NOTHING_KNOWN)
