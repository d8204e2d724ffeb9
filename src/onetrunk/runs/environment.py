"""What a run was made with: versions, hardware, seed, and the data by its fingerprints."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from onetrunk.data.domain import Domain
from onetrunk.errors import BadInput
from onetrunk.store.run_folder import RunFolder

NAME = "environment.json"
PACKAGES = ("onetrunk", "torch", "torchvision", "timm", "numpy", "pillow")


def environment(domains: Sequence[Domain], seed: int, device: torch.device) -> dict[str, Any]:
    """As environment.json keeps it: no host, no user, no path."""
    hardware = {"device": str(device), "machine": platform.machine(), "system": platform.system()}
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {**hardware, "threads": torch.get_num_threads()},
        "seed": seed,
        "data": {domain.name: mark_of(domain) for domain in domains},
    }


def check_data(run: RunFolder, now: dict[str, Any]) -> None:
    """Write it, or, where a run goes on, refuse other images than it began with."""
    path = run.path / NAME
    if not path.exists():
        run.write(NAME, now)
        return
    before = json.loads(path.read_text("utf-8"))["data"]
    changed = [name for name, mark in now["data"].items() if before.get(name) != mark]
    if changed:
        raise BadInput(
            f"the images of {', '.join(changed)} are not those that {run.path} began with",
            try_="put them back, or start a new run with another `out`",
        )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout
            found[name] = "not installed"
    return found


def mark_of(domain: Domain) -> str:
    """Of all that a batch depends on: the list of images, their labels, what each became."""
    index, scan = domain.index, domain.decoded.records
    digest = hashlib.sha256(index.fingerprint.encode())
    digest.update(index.split.tobytes())
    for name, column in sorted(index.labels.items()):
        digest.update(name.encode() + column.tobytes())
    digest.update(json.dumps(domain.pixels.to_json(), sort_keys=True).encode())
    digest.update(scan["status"].tobytes() + scan["mean"].tobytes())
    return digest.hexdigest()
