"""The environment of a run: versions, hardware, seed, and fingerprints and splits of the data."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from onetrunk.data.domain import Domain
from onetrunk.data.kept_splits import FILE as SPLITS_FILE
from onetrunk.data.kept_splits import save_splits
from onetrunk.errors import BadInput
from onetrunk.runs.open import read_json
from onetrunk.store.run_folder import RunFolder
from onetrunk.train.distill.teachers import Teacher
from onetrunk.train.loop import NO_TEACHERS

NAME = "environment.json"
PACKAGES = ("onetrunk", "torch", "torchvision", "timm", "numpy", "pillow")


def environment(
    domains: Sequence[Domain],
    seed: int,
    device: torch.device,
    threads: str = "",
    teachers: Mapping[str, Sequence[Teacher]] = NO_TEACHERS,
) -> dict[str, Any]:
    """Return the content of environment.json, which has no host, user or path.

    Args:
        teachers: The teachers of each domain.
        threads: Why the run has its number of threads.
    """
    hardware = {"device": str(device), "machine": platform.machine(), "system": platform.system()}
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            **hardware,
            "threads": torch.get_num_threads(),
            **({"threads_by": threads} if threads else {}),
        },
        "seed": seed,
        "data": {domain.name: data_fingerprint(domain) for domain in domains},
        "teachers": {name: [t.fingerprint for t in each] for name, each in teachers.items()},
    }


def check_environment(run: RunFolder, now: dict[str, Any], domains: Sequence[Domain]) -> None:
    """Write environment.json and the splits by hash; or check that nothing was replaced.

    Args:
        run: The run. If it continues, BadInput is raised for changed images and other teachers.
        now: The content of environment.json.
        domains: The domains of the training.
    """
    path = run.path / NAME
    if not path.exists():
        with run.writing(SPLITS_FILE):
            save_splits(run.path, {d.name: d.assigned for d in domains})
        run.write(NAME, now)
        return
    before = read_json(path)
    for key, what in (("data", "the images of"), ("teachers", "the teachers of")):
        recorded = before.get(key, {})
        changed = [name for name, digest in now[key].items() if recorded.get(name) != digest]
        if changed:
            raise BadInput(
                f"{what} {', '.join(changed)} have changed since {run.path} was started",
                try_="restore them, or start a new run with another `out`",
            )


def recorded_threads(run: RunFolder) -> int | None:
    """Return the number of threads that a run was started with; None for a new run."""
    try:
        count = json.loads((run.path / NAME).read_text("utf-8"))["hardware"]["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) and count >= 1 else None


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout
            versions[name] = "not installed"
    return versions


def data_fingerprint(domain: Domain) -> str:
    """Return the SHA-256 of all that batches depend on: images, splits, labels, preprocessing."""
    index, scan = domain.index, domain.decoded.records
    digest = hashlib.sha256(index.fingerprint.encode())
    digest.update(index.split.tobytes())
    for name, column in sorted(index.labels.items()):
        digest.update(name.encode() + column.tobytes())
    digest.update(json.dumps(domain.pixels.to_json(), sort_keys=True).encode())
    digest.update(scan["status"].tobytes() + scan["mean"].tobytes())
    return digest.hexdigest()
