"""Several views of each image, and their predictions as one: test-time scales and mirroring of maps.

Each image is resized by every scale (and mirrored), the network predictions every one, and the maps are
brought back to the image's size and averaged. What is averaged:

| kind | |
|---|---|
| segment | the classes' probabilities (the output is their logarithm) |
| depth | the depth times the scale; divided by it where depth is inverse |
| normals | the vectors, then brought to length 1; a mirrored one's x is negated |

Depth times the scale, because an image of twice the pixels is that of a camera of twice the focal
length: the network, which learned at one, sees everything at half the distance. It is what
`augment` says of zooming, too. Tasks that are no maps are answered at the image's own size alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onetrunk.data.task import Task
from onetrunk.errors import BadInput
from onetrunk.nn.universal import Universal

LEAST, MOST = 0.25, 4.0


@dataclass(frozen=True)
class Views:
    """The scales at which each image is seen, and whether mirrored, too."""

    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        scales = tuple(self.scales)
        if not scales or not all(LEAST <= scale <= MOST for scale in scales):
            raise BadInput(f"scales are factors of {LEAST:g} to {MOST:g}", got=list(scales))
        if len(set(scales)) < len(scales):
            raise BadInput("each scale once", got=list(scales))
        object.__setattr__(self, "scales", scales)

    @property
    def plain(self) -> bool:
        """Each image once, as it is."""
        return self.scales == (1.0,) and not self.mirror

    @property
    def described(self) -> str:
        """In words, for whoever reads a score; nothing where it is plain."""
        if self.plain:
            return ""
        listed = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"maps averaged over scale{'s' * (len(self.scales) > 1)} {listed}" + (
            ", each mirrored, too" if self.mirror else ""
        )

    def check(self, model: Universal, domain: str) -> None:
        """Refuse scales for maps of a trunk that takes one size."""
        built = model.trunk.backbone.size
        dense = any(task.dense for task in model.domains[domain].tasks)
        if dense and built is not None and self.scales != (1.0,):
            raise BadInput(
                f"{model.trunk.arch} takes images of {built[0]}×{built[1]} alone, so {domain} has "
                "one scale",
                got=list(self.scales),
                try_="scales = 1; mirroring is possible",
            )

    @property
    def pixels(self) -> float:
        """Of the largest view, for one of the image."""
        return max(1.0, *(scale**2 for scale in self.scales))


def prediction(
    model: Universal, images_BCHW: Tensor, domain: str, tasks: Sequence[Task], views: Views
) -> dict[str, Tensor]:
    """A batch's outputs by task, as the heads give them, of all views together."""
    dense = [task for task in tasks if task.dense]
    if views.plain or not dense:
        plain: dict[str, Tensor] = model(images_BCHW, domain=domain)
        return plain
    size = images_BCHW.shape[-2:]
    sums: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}
    for scale in views.scales:
        seen = resize(images_BCHW, scale)
        nearer = math.sqrt(seen.shape[-2] * seen.shape[-1] / (size[0] * size[1]))
        for mirrored in (False, True)[: 1 + views.mirror]:
            found = model(seen.flip(-1) if mirrored else seen, domain=domain)
            if scale == 1 and not mirrored:
                out = found
            for task in dense:
                got = back(task, found[task.name], (size[0], size[1]), nearer, mirrored)
                sums[task.name] = sums[task.name] + got if task.name in sums else got
    if len(dense) < len(tasks) and not out:
        out = model(images_BCHW, domain=domain)
    count = len(views.scales) * (1 + views.mirror)
    return {**out, **{task.name: mean(task, sums[task.name], count) for task in dense}}


def resize(images_BCHW: Tensor, scale: float) -> Tensor:
    """The images at a scale, smoothed where they shrink; themselves at 1."""
    if scale == 1:
        return images_BCHW
    size = [max(1, round(side * scale)) for side in images_BCHW.shape[-2:]]
    return F.interpolate(images_BCHW, size, mode="bilinear", antialias=True)


def back(
    task: Task, out_BCHW: Tensor, size: tuple[int, int], nearer: float, mirrored: bool
) -> Tensor:
    """A view's map as the image itself would have it, in what is averaged."""
    if mirrored:
        out_BCHW = out_BCHW.flip(-1)
    if task.kind == "segment":
        out_BCHW = out_BCHW.softmax(1)
    elif task.kind == "depth":
        out_BCHW = out_BCHW / nearer if task.inverse else out_BCHW * nearer
    elif mirrored:
        out_BCHW = out_BCHW * out_BCHW.new_tensor([-1, 1, 1])[:, None, None]
    if out_BCHW.shape[-2:] == size:
        return out_BCHW
    return F.interpolate(out_BCHW, size, mode="bilinear", antialias=True)


def mean(task: Task, sum_BCHW: Tensor, count: int) -> Tensor:
    """The views' mean, as a head gives it."""
    if task.kind == "segment":
        return (sum_BCHW / count).clamp_min(torch.finfo(sum_BCHW.dtype).tiny).log()
    return sum_BCHW / count if task.kind == "depth" else F.normalize(sum_BCHW, dim=1)
