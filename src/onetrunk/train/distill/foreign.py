"""Teachers from elsewhere: any module with a function that looks at images.

    Foreign(net, lambda x: {"pooled": net.embed(x), "classify": net(x)},
            classes={"classify": ["cat", "dog"]}, pixels=Pixels((224, 224), mean=…, std=…))

One such network may teach several domains: of each it is asked what that domain's tasks need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onetrunk.data.domain import Domain
from onetrunk.data.loader import Batch
from onetrunk.data.pixels import Pixels
from onetrunk.data.task import LABELLED, Task
from onetrunk.errors import BadInput
from onetrunk.eval.timm_checkpoint import Names, chosen, match
from onetrunk.nn.feature_points import BOTTLENECK, POOLED, Inside
from onetrunk.train.distill.teachers import ImageConverter

Look = Callable[[Tensor], Tensor | Mapping[str, Tensor]]


class Foreign:
    """A network of your own as a teacher; while it teaches it is frozen and in evaluation mode.

    `look`: normalized images to its features, (B, C) or maps (B, C, h, w), or to a table of them by
    point ("pooled", "bottleneck", a name of `distill.feature_layers`) and of its answers by the names of the
    tasks; without it the module itself is called. `classes`: by task the names of its outputs, in
    their order (of one with several names a tuple); those of the domain are picked out by name,
    apart from case and blanks. `pixels`: its size and normalization.
    """

    def __init__(
        self,
        module: nn.Module,
        look: Look | None = None,
        *,
        pixels: Pixels,
        classes: Mapping[str, Sequence[str | Names]] | None = None,
        name: str | None = None,
    ) -> None:
        self.module = module
        self.sees: Look = module if look is None else look
        self.pixels = pixels
        self.classes = {
            task: [(label,) if isinstance(label, str) else tuple(label) for label in labels]
            for task, labels in (classes or {}).items()
        }
        self.name = type(module).__name__ if name is None else name

    @torch.no_grad()
    def look(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """All that it says, by point and by task."""
        self.module.eval()
        like = next(self.module.parameters(), images_BCHW)
        said = self.sees(images_BCHW.to(like.device, like.dtype))
        if isinstance(said, Tensor):
            return {POOLED if said.ndim == 2 else BOTTLENECK: said}
        return dict(said)

    def try_out(self) -> dict[str, Tensor]:
        """What it says of two black images; whatever it cannot do is found here."""
        self.module.requires_grad_(False)
        height, width = self.pixels.size
        try:
            said = self.look(torch.zeros(2, 3, height, width))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            raise BadInput(
                f"teacher {self.name}: it cannot look at images of {height}×{width}",
                got=(str(error).split("\n")[0] or type(error).__name__)[:160],
                try_="pixels=Pixels((height, width), …) says the size it was made for",
            ) from None
        for key, value in said.items():
            if not isinstance(value, Tensor) or value.ndim not in (2, 4) or len(value) != 2:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise BadInput(
                    f"teacher {self.name}: expected rows (B, C) or maps (B, C, h, w) at {key!r}",
                    got=f"{shape} of 2 images",
                )
        return said


class Guest:
    """A foreign network as the teacher of one domain."""

    def __init__(
        self, foreign: Foreign, domain: Domain, tasks: Sequence[str], logits: bool = True
    ) -> None:
        self.foreign, self.name, self.tasks = foreign, foreign.name, tuple(tasks)
        said = foreign.try_out()
        known = {task.name: task for task in domain.tasks if task.name in tasks}
        self.kinds = {name: known[name] for name in said if name in known and logits}
        self.predictions = tuple(self.kinds)
        elsewhere = {*known, *foreign.classes}  # what it answers in other domains is no point
        self.widths: Mapping[str, int] = {
            key: t.shape[1] for key, t in said.items() if key not in elsewhere
        }
        self.places: dict[str, Tensor | None] = {
            name: self._places(task, said[name], f"{self.name}: {domain.name}/{name}")
            for name, task in self.kinds.items()
        }
        self.converter = ImageConverter(domain.pixels, foreign.pixels)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Work there from now on."""
        self.foreign.module.to(device)
        if channels_last:
            self.foreign.module.to(memory_format=torch.channels_last)
        self.converter.to(device)
        self.places = {t: None if p is None else p.to(device) for t, p in self.places.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, batch: Batch, points: Sequence[str]) -> Inside:
        """Its answers and its features at these points."""
        said = self.foreign.look(self.converter(images))
        size = (images.shape[-2], images.shape[-1])
        predictions = {
            name: self._prediction(task, said[name], size) for name, task in self.kinds.items()
        }
        return Inside(predictions, {point: said[point] for point in points})

    def _prediction(self, task: Task, said: Tensor, size: tuple[int, int]) -> Tensor:
        """In the order of the domain's classes, a map at the student's size."""
        places = self.places[task.name]
        if places is not None and places.ndim == 1:
            said = said.index_select(1, places)
        elif places is not None:  # log Σ exp over the labels of one name
            rows = said.movedim(1, -1)
            flat = chosen(rows.reshape(-1, rows.shape[-1]), places)
            said = flat.reshape(*rows.shape[:-1], -1).movedim(-1, 1)
        if task.dense and said.shape[-2:] != size:
            said = F.interpolate(said, size, mode="bilinear", align_corners=False)
        return F.normalize(said, dim=1) if task.kind == "normals" else said

    def _places(self, task: Task, said: Tensor, who: str) -> Tensor | None:
        """Where the domain's classes stand among its labels: (C,), or (C, most labels of one)."""
        form = "maps (B, C, h, w)" if task.dense else "rows (B, C)"
        if (said.ndim == 4) != task.dense:
            raise BadInput(f"teacher {who}: expected {form}", got=tuple(said.shape))
        outputs = said.shape[1]
        if task.kind not in LABELLED or task.kind == "embed":
            if task.kind != "embed" and outputs != task.width:
                raise BadInput(f"teacher {who}: expected {task.width} outputs", got=outputs)
            return None
        names = self.foreign.classes.get(task.name, ())
        if len(names) != outputs:
            raise BadInput(
                f"teacher {who}: its {outputs} outputs have no names",
                got=f"{len(names)} names",
                try_=f"classes={{{task.name!r}: [one name for each]}}",
            )
        found = match(task, names)
        if lacking := [name for name, places in found.items() if not places]:
            raise BadInput(
                f"teacher {who}: none of its outputs has the name of a class",
                got=", ".join(lacking[:5]) + (f", … ({len(lacking)})" if lacking[5:] else ""),
                available=[label[0] for label in names],
            )
        most = max(map(len, found.values()))
        if most == 1:
            order = [places[0] for places in found.values()]
            return None if order == list(range(outputs)) else torch.tensor(order)
        if task.kind == "multilabel":
            raise BadInput(f"teacher {who}: two of its outputs have the name of one class")
        # (`chosen` gives one number more than there are outputs for what is not there)
        rows = [[*places, *[outputs] * (most - len(places))] for places in found.values()]
        return torch.tensor(rows)
