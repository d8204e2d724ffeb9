"""Teachers from timm: `timm/NAME` with its pretrained weights, `timm/NAME:FILE` with a file's.

Features are pooled ones (what its classifier reads) and its last map; a transformer's tokens are
one, too. Its own size and normalization come from timm's configuration, for a file from the config.json
that timm writes beside it, where it is. It answers a classify task whose classes all are labels of
its classifier, ImageNet's by any of their names; of any other domain it teaches features alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onetrunk.data.domain import Domain
from onetrunk.data.pixels import Pixels
from onetrunk.errors import BadInput, printable, shorten
from onetrunk.eval.timm_checkpoint import Names, create, match, names_of, pixels_of
from onetrunk.nn.feature_points import BOTTLENECK, POOLED
from onetrunk.train.distill.foreign import Foreign, Guest

PREFIX = "timm/"


class Checkpoint:
    """A network of timm's, read once however many domains it teaches."""

    def __init__(self, text: str, root: Path) -> None:
        """`text`: timm/NAME, or timm/NAME:FILE with a path that starts at `root`."""
        arch, colon, file = text.partition(":")
        self.name = f"{arch}:{Path(file).name}" if colon else arch
        beside = _config(root / file) if colon else {}
        labels: Any = beside.get("label_names")
        named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        self.names: list[Names] | None = None
        try:
            self.net = create(arch, root / file if colon else True, len(labels) if named else None)
            if named and len(labels) == self.net.num_classes:
                self.names = [(label,) for label in labels]
            elif self.net.num_classes:
                self.names = names_of(arch, self.net)
        except BadInput as error:
            if not hasattr(self, "net"):
                self.net = _without_classifier(arch, root / file, error)
        self.pixels = _pixels(self.name, self.net, beside.get("pretrained_cfg"))

    def of(self, domain: Domain, tasks: Sequence[str], logits: bool) -> tuple[Guest, list[str]]:
        """As the teacher of one domain, and what is worth knowing."""
        notes: list[str] = []
        predicted: dict[str, list[Names]] = {}
        for task in domain.tasks if logits and self.names else ():
            if task.name in tasks and task.kind == "classify":
                found = match(task, self.names or ())
                lacking = [name for name, places in found.items() if not places]
                if not lacking:
                    predicted[task.name] = self.names or []
                elif len(lacking) < len(task.classes):
                    notes.append(
                        f"{domain.name}/{task.name}: {self.name} teaches features alone: "
                        f"{len(lacking)} of {len(task.classes)} classes are no label of it: "
                        f"{shorten(lacking, 8)}"
                    )

        def look(images: Tensor) -> dict[str, Tensor]:
            last, found = features(self.net, images)
            logits = self.net.forward_head(last) if predicted else None
            return {**found, **({} if logits is None else dict.fromkeys(predicted, logits))}

        foreign = Foreign(self.net, look, pixels=self.pixels, classes=predicted, name=self.name)
        return Guest(foreign, domain, tasks, logits), [printable(note) for note in notes]


def features(net: Any, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a network of timm's hands to its classifier, and its features by point."""
    last = net.forward_features(images)
    found: dict[str, Tensor] = {}
    if last.ndim == 4:
        channels_first = getattr(net, "output_fmt", "NCHW") == "NCHW"
        found[BOTTLENECK] = last if channels_first else last.permute(0, 3, 1, 2)
    elif last.ndim == 3 and hasattr(net, "forward_intermediates"):
        last, maps = net.forward_intermediates(images, indices=1, norm=True)
        found[BOTTLENECK] = maps[-1]
    return last, {POOLED: net.forward_head(last, pre_logits=True), **found}


def _without_classifier(arch: str, path: Path, error: BadInput) -> Any:
    """The network of a file whose classifier is another's, or is not there."""
    try:
        return create(arch, path, 0)
    except BadInput:
        said = str(error).removeprefix("pretrained: ")
        raise BadInput(f"teacher {arch}: {said}") from None


def _config(path: Path) -> dict[str, Any]:
    """The config.json beside a file of weights, where there is one."""
    beside = path.parent / "config.json"
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"cannot read config.json beside {path.name}", got=str(error)[:100]
        ) from None
    return found if isinstance(found, dict) else {}


def _pixels(name: str, net: Any, config: object) -> Pixels:
    """Size and normalization: the file's own configuration before timm's."""
    pixels = pixels_of(net)
    if not isinstance(config, dict):
        return pixels
    try:
        _, height, width = config.get("input_size", (3, *pixels.size))
        mean, std = (tuple(map(float, config.get(k, getattr(pixels, k)))) for k in ("mean", "std"))
        own = replace(pixels, size=(int(height), int(width)), mean=mean, std=std)  # type: ignore[arg-type]
        torch.tensor([own.mean, own.std]).reshape(2, 3)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(
            f"teacher {name}: config.json names no size and normalization", got=str(error)[:100]
        ) from None
    return own
