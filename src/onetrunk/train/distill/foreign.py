"""Teachers that are not onetrunk networks: user-defined modules, and timm checkpoints.

    Foreign(net, lambda x: {"pooled": net.embed(x), "classify": net(x)},
            classes={"classify": ["cat", "dog"]}, pixels=Pixels((224, 224), mean=…, std=…))

One such network may teach several domains.

`timm/NAME` is a timm network with its pretrained weights, `timm/NAME:FILE` one with the weights of
a file. Its features are the pooled ones, which its classifier reads, and its last map (of a
transformer, its tokens). Its size and normalization come from timm's configuration, or from the
config.json that timm writes beside a file. It predicts a classify task if its classifier has an
output for each class; for any other task it only provides features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import LABELLED, Task
from onetrunk.errors import BadInput, printable, shorten
from onetrunk.nn.feature_points import BOTTLENECK, POOLED, Outputs
from onetrunk.nn.foreign import (
    Label,
    class_logits,
    create_timm,
    match_classes,
    missing_classes,
    places_table,
    timm_labels,
    timm_pixels,
)
from onetrunk.nn.weights import config_beside
from onetrunk.store.tensors import fingerprint_of
from onetrunk.train.distill.teachers import ImageConverter

PREFIX = "timm/"
Function = Callable[[Tensor], Tensor | Mapping[str, Tensor]]


class Foreign:
    """A user-defined network as a teacher, frozen and in evaluation mode.

    Args:
        module: The network.
        function: Maps normalized images to features, (B, C) or maps (B, C, h, w), or to a mapping
            with features by point ("pooled", "bottleneck", a name in `distill.feature_layers`) and
            predictions by task; by default the module itself.
        pixels: The size and normalization of its images.
        classes: By task the names of its outputs, in order; a tuple for one with several names.
            The classes of a domain are found by name, apart from case and blanks.
        name: Shown in messages and records.
    """

    def __init__(
        self,
        module: nn.Module,
        function: Function | None = None,
        *,
        pixels: Pixels,
        classes: Mapping[str, Sequence[str | Label]] | None = None,
        name: str | None = None,
    ) -> None:
        self.module = module
        self.function: Function = module if function is None else function
        self.pixels = pixels
        self.classes = {
            task: [(label,) if isinstance(label, str) else tuple(label) for label in labels]
            for task, labels in (classes or {}).items()
        }
        self.name = type(module).__name__ if name is None else name

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return its features by point and its predictions by task."""
        self.module.eval()
        like = next(self.module.parameters(), images_BCHW)
        outputs = self.function(images_BCHW.to(like.device, like.dtype))
        if isinstance(outputs, Tensor):
            return {POOLED if outputs.ndim == 2 else BOTTLENECK: outputs}
        return dict(outputs)

    def probe(self) -> dict[str, Tensor]:
        """Freeze the network and return its outputs for two black images, after checking them."""
        self.module.requires_grad_(False)
        height, width = self.pixels.size
        try:
            outputs = self.forward(torch.zeros(2, 3, height, width))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            raise BadInput(
                f"teacher {self.name} cannot take images of {height}×{width}",
                got=(str(error).split("\n")[0] or type(error).__name__)[:160],
                try_="pixels=Pixels((height, width), …) with the size that it was made for",
            ) from None
        for key, value in outputs.items():
            if not isinstance(value, Tensor) or value.ndim not in (2, 4) or len(value) != 2:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise BadInput(
                    f"teacher {self.name}: expected rows (B, C) or maps (B, C, h, w) for {key!r}",
                    got=f"{shape} for 2 images",
                )
        return outputs


class ForeignTeacher:
    """A foreign network as the teacher of one domain."""

    def __init__(
        self, foreign: Foreign, domain: Domain, tasks: Sequence[str], logits: bool = True
    ) -> None:
        self.foreign, self.name, self.tasks = foreign, foreign.name, tuple(tasks)
        outputs = foreign.probe()
        known = {task.name: task for task in domain.tasks if task.name in tasks}
        self.predicted = {name: known[name] for name in outputs if name in known and logits}
        self.predictions = tuple(self.predicted)
        tasks_elsewhere = {*known, *foreign.classes}  # predictions for other domains: no features
        self.widths: Mapping[str, int] = {
            key: t.shape[1] for key, t in outputs.items() if key not in tasks_elsewhere
        }
        self.places: dict[str, Tensor | None] = {
            name: self._places(task, outputs[name], f"{self.name}: {domain.name}/{name}")
            for name, task in self.predicted.items()
        }
        self.converter = ImageConverter(domain.pixels, foreign.pixels)
        self.fingerprint = fingerprint_of(foreign.module.state_dict(), foreign.pixels.to_json())

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the network to a device."""
        self.foreign.module.to(device)
        if channels_last:
            self.foreign.module.to(memory_format=torch.channels_last)
        self.converter.to(device)
        self.places = {t: None if p is None else p.to(device) for t, p in self.places.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Outputs:
        """Return predictions, and features at `points`."""
        outputs = self.foreign.forward(self.converter(images))
        size = (images.shape[-2], images.shape[-1])
        predictions = {
            name: self._prediction(task, outputs[name], size)
            for name, task in self.predicted.items()
        }
        return Outputs(predictions, {point: outputs[point] for point in points})

    def _prediction(self, task: Task, output: Tensor, size: tuple[int, int]) -> Tensor:
        """Return an output in the order of the domain's classes, maps at the student's size."""
        places = self.places[task.name]
        if places is not None and places.ndim == 1:
            output = output.index_select(1, places)
        elif places is not None:
            rows = output.movedim(1, -1)
            flat = class_logits(rows.reshape(-1, rows.shape[-1]), places)
            output = flat.reshape(*rows.shape[:-1], -1).movedim(-1, 1)
        if task.dense and output.shape[-2:] != size:
            output = F.interpolate(output, size, mode="bilinear", align_corners=False)
        return F.normalize(output, dim=1) if task.kind == "normals" else output

    def _places(self, task: Task, output: Tensor, where: str) -> Tensor | None:
        """Return the outputs of the domain's classes: (C,), or (C, outputs per class)."""
        form = "maps (B, C, h, w)" if task.dense else "rows (B, C)"
        if (output.ndim == 4) != task.dense:
            raise BadInput(f"teacher {where}: expected {form}", got=tuple(output.shape))
        width = output.shape[1]
        if task.kind not in LABELLED or task.kind == "embed":
            if task.kind != "embed" and width != task.width:
                raise BadInput(f"teacher {where}: expected {task.width} outputs", got=width)
            return None
        names = self.foreign.classes.get(task.name, ())
        if len(names) != width:
            raise BadInput(
                f"teacher {where}: expected names for its {width} outputs",
                got=f"{len(names)} names",
                try_=f"classes={{{task.name!r}: [one name for each]}}",
            )
        places = match_classes(task.classes, names)
        if missing := missing_classes(places):
            raise BadInput(
                f"teacher {where}: expected an output for every class",
                got=f"none for {shorten(missing, 5)}",
                available=[label[0] for label in names],
            )
        table = places_table(places, width)
        if table.shape[1] == 1:
            order = table[:, 0]
            return None if order.tolist() == list(range(width)) else order
        if task.kind == "multilabel":
            raise BadInput(f"teacher {where}: two of its outputs have the name of one class")
        return table


class TimmCheckpoint:
    """A timm network, loaded once for all domains that it teaches.

    Args:
        text: timm/NAME, or timm/NAME:FILE.
        root: Where the path of the file starts.
    """

    def __init__(self, text: str, root: Path) -> None:
        arch, colon, file = text.partition(":")
        self.name = f"{arch}:{Path(file).name}" if colon else arch
        config = config_beside(root / file) if colon else {}
        names: Any = config.get("label_names")
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        self.labels: list[Label] | None = None
        try:
            weights = root / file if colon else True
            self.net = create_timm(arch, weights, len(names) if named else None)
            if named and len(names) == self.net.num_classes:
                self.labels = [(name,) for name in names]
            elif self.net.num_classes:
                self.labels = timm_labels(arch, self.net)
        except BadInput as error:
            if not hasattr(self, "net"):
                self.net = _without_classifier(arch, root / file, error)
        self.pixels = _pixels(self.name, self.net, config.get("pretrained_cfg"))

    def of(
        self, domain: Domain, tasks: Sequence[str], logits: bool
    ) -> tuple[ForeignTeacher, list[str]]:
        """Return the teacher of one domain, and notes."""
        notes: list[str] = []
        predicted: dict[str, list[Label]] = {}
        for task in domain.tasks if logits and self.labels else ():
            if task.name in tasks and task.kind == "classify":
                missing = missing_classes(match_classes(task.classes, self.labels or ()))
                if not missing:
                    predicted[task.name] = self.labels or []
                elif len(missing) < len(task.classes):
                    notes.append(
                        f"{domain.name}/{task.name}: {self.name} only provides features, because "
                        f"it has no output for {len(missing)} of {len(task.classes)} classes: "
                        f"{shorten(missing, 8)}"
                    )

        def forward(images: Tensor) -> dict[str, Tensor]:
            last, outputs = _features(self.net, images)
            logits = self.net.forward_head(last) if predicted else None
            return {**outputs, **({} if logits is None else dict.fromkeys(predicted, logits))}

        foreign = Foreign(self.net, forward, pixels=self.pixels, classes=predicted, name=self.name)
        teacher = ForeignTeacher(foreign, domain, tasks, logits)
        return teacher, [printable(note) for note in notes]


def _features(net: Any, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the input of a timm network's classifier, and its features by point."""
    last = net.forward_features(images)
    features: dict[str, Tensor] = {}
    if last.ndim == 4:
        channels_first = getattr(net, "output_fmt", "NCHW") == "NCHW"
        features[BOTTLENECK] = last if channels_first else last.permute(0, 3, 1, 2)
    elif last.ndim == 3 and hasattr(net, "forward_intermediates"):
        last, maps = net.forward_intermediates(images, indices=1, norm=True)
        features[BOTTLENECK] = maps[-1]
    return last, {POOLED: net.forward_head(last, pre_logits=True), **features}


def _without_classifier(arch: str, path: Path, error: BadInput) -> Any:
    """Return the network of a file whose classifier is missing or has another size."""
    try:
        return create_timm(arch, path, 0)
    except BadInput:
        error.expected = f"teacher {arch}: {error.expected.removeprefix('pretrained: ')}"
        raise error from None


def _pixels(name: str, net: Any, config: object) -> Pixels:
    """Return the size and normalization: the file's own configuration before timm's."""
    pixels = timm_pixels(net)
    if not isinstance(config, dict):
        return pixels
    try:
        _, height, width = config.get("input_size", (3, *pixels.size))
        mean, std = (tuple(map(float, config.get(k, getattr(pixels, k)))) for k in ("mean", "std"))
        own = replace(pixels, size=(int(height), int(width)), mean=mean, std=std)  # type: ignore[arg-type]
        torch.tensor([own.mean, own.std]).reshape(2, 3)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(
            f"teacher {name}: config.json has no valid size and normalization", got=str(error)[:100]
        ) from None
    return own
