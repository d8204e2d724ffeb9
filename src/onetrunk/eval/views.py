"""Test-time averaging of maps over several views of each image: scales and mirroring.

Each image is resized by every scale (and mirrored), the network predicts maps of every view, and
the maps are resized to the image's size and averaged. What is averaged:

| kind | |
|---|---|
| segment | the probabilities of the classes; the output is their logarithm |
| depth | the depth times the scale; divided by it for inverse depth |
| normals | the vectors, normalized to length 1; of mirrored views, x is negated |

Depth is multiplied by the scale because an image with twice the pixels corresponds to a camera with
twice the focal length, for which the network predicts half the distance. Augmentation by zooming
scales depth in the same way. Tasks without maps are predicted at the image's own size alone.
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

MIN_SCALE, MAX_SCALE = 0.25, 4.0


@dataclass(frozen=True)
class Views:
    """The scales of the views of each image, and whether each view is also mirrored."""

    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        scales = tuple(self.scales)
        if not scales or not all(MIN_SCALE <= scale <= MAX_SCALE for scale in scales):
            raise BadInput(f"expected scales from {MIN_SCALE:g} to {MAX_SCALE:g}", got=list(scales))
        if len(set(scales)) < len(scales):
            raise BadInput("expected each scale once", got=list(scales))
        object.__setattr__(self, "scales", scales)

    @property
    def plain(self) -> bool:
        """Whether the only view is the image itself."""
        return self.scales == (1.0,) and not self.mirror

    @property
    def description(self) -> str:
        """The views in words, to show with the scores; empty if plain."""
        if self.plain:
            return ""
        scales = "scales" if len(self.scales) > 1 else "scale"
        listed = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"maps averaged over {scales} {listed}" + ", each also mirrored" * self.mirror

    def check(self, model: Universal, domain: str) -> None:
        """Refuse scales if the trunk only accepts images of one size."""
        size = model.trunk.backbone.size
        dense = any(task.dense for task in model.domains[domain].tasks)
        if dense and size is not None and self.scales != (1.0,):
            raise BadInput(
                f"{model.trunk.arch} only accepts images of {size[0]}×{size[1]} pixels, so "
                f"{domain} can have no other scale than 1",
                got=list(self.scales),
                try_="mirroring, without scales",
            )

    @property
    def pixels(self) -> float:
        """The pixels of the largest view, for one pixel of the image; at least 1."""
        return max(1.0, *(scale**2 for scale in self.scales))


def predict_views(
    model: Universal, images_BCHW: Tensor, domain: str, tasks: Sequence[Task], views: Views
) -> dict[str, Tensor]:
    """Return a batch's outputs by task, as heads return them, averaged over all views."""
    dense = [task for task in tasks if task.dense]
    if views.plain or not dense:
        plain: dict[str, Tensor] = model(images_BCHW, domain=domain)
        return plain
    size = images_BCHW.shape[-2:]
    sums: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}
    for scale in views.scales:
        view = resize(images_BCHW, scale)
        zoom = math.sqrt(view.shape[-2] * view.shape[-1] / (size[0] * size[1]))
        for mirrored in (False, True)[: 1 + views.mirror]:
            outputs = model(view.flip(-1) if mirrored else view, domain=domain)
            if scale == 1 and not mirrored:
                out = outputs
            for task in dense:
                term = map_of_image(task, outputs[task.name], (size[0], size[1]), zoom, mirrored)
                sums[task.name] = sums[task.name] + term if task.name in sums else term
    if len(dense) < len(tasks) and not out:
        out = model(images_BCHW, domain=domain)
    count = len(views.scales) * (1 + views.mirror)
    return {**out, **{task.name: mean_output(task, sums[task.name], count) for task in dense}}


def resize(images_BCHW: Tensor, scale: float) -> Tensor:
    """Return the images resized by a factor, with antialiasing; unchanged at 1."""
    if scale == 1:
        return images_BCHW
    size = [max(1, round(side * scale)) for side in images_BCHW.shape[-2:]]
    return F.interpolate(images_BCHW, size, mode="bilinear", antialias=True)


def map_of_image(
    task: Task, out_BCHW: Tensor, size: tuple[int, int], zoom: float, mirrored: bool
) -> Tensor:
    """Return a view's map as a map of the image, in the quantity that is averaged."""
    if mirrored:
        out_BCHW = out_BCHW.flip(-1)
    if task.kind == "segment":
        out_BCHW = out_BCHW.softmax(1)
    elif task.kind == "depth":
        out_BCHW = out_BCHW / zoom if task.inverse else out_BCHW * zoom
    elif mirrored:
        out_BCHW = out_BCHW * out_BCHW.new_tensor([-1, 1, 1])[:, None, None]
    if out_BCHW.shape[-2:] == size:
        return out_BCHW
    return F.interpolate(out_BCHW, size, mode="bilinear", antialias=True)


def mean_output(task: Task, sum_BCHW: Tensor, count: int) -> Tensor:
    """Return the mean over views, as a head would output it."""
    if task.kind == "segment":
        return (sum_BCHW / count).clamp_min(torch.finfo(sum_BCHW.dtype).tiny).log()
    return sum_BCHW / count if task.kind == "depth" else F.normalize(sum_BCHW, dim=1)
