"""Dense answers as coloured maps: the image, the truth and the prediction side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from onetrunk.data.contact_sheet import colour_classes, colour_normals
from onetrunk.data.pixels import U8
from onetrunk.data.split import Split
from onetrunk.data.task import NO_PIXEL, Task
from onetrunk.report.picture import Picture

LONGEST = 192  # pixels of a tile
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class DenseExample:
    """One test image: what it stands for, its tiles with their names, its file."""

    what: str
    tiles: tuple[tuple[str, Picture], ...]
    file: str


def dense_examples(
    split: Split,
    places: NDArray[np.int64],
    tasks: Sequence[Task],
    out: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
) -> tuple[DenseExample, ...]:
    """The best, the middle and the worst image, by the first task's error on each image."""
    error = torch.stack([_error(tasks[0], o, t) for o, t in _pairs(tasks[0], out, targets)])
    known = torch.nonzero(torch.isfinite(error)).flatten()
    if not len(known):
        return ()
    order = known[error[known].argsort(stable=True)].tolist()
    picked = {"best": order[0], "middle": order[len(order) // 2], "worst": order[-1]}
    examples = []
    for what, row in list(picked.items())[: min(3, len(order))]:
        place = places[row : row + 1]
        image: U8 = split.pixels.centre(split.stored(place)[0])[0]
        tiles = [("image", Picture.of(image, longest=LONGEST))]
        for task in tasks:
            truth, said = coloured(task, out[task.name][row], targets[task.name][row])
            for name, tile in (("truth", truth), ("predicted", said)):
                picture = Picture.of(tile, lossless=task.kind == "segment", longest=LONGEST)
                tiles.append((f"{task.name}: {name}", picture))
        words = f"{what}: {_words(tasks[0], float(error[row]))}"
        examples.append(DenseExample(words, tuple(tiles), split.key(int(place[0]))))
    return tuple(examples)


def coloured(task: Task, out: Tensor, target: Tensor) -> tuple[U8, U8]:
    """Truth and prediction of one image in the same colours; black where nothing is labelled."""
    if task.kind == "segment":
        return colour_classes(target.numpy()), colour_classes(out.argmax(0).to(torch.uint8).numpy())
    if task.kind == "depth":
        truth, said = target.numpy(), out[0].numpy()
        known = truth[truth > 0]
        if task.inverse:  # the colours go by the inverse of what they are given
            truth = np.where(truth > 0, 1 / np.maximum(truth, 1e-3), 0)
            said, known = 1 / np.maximum(said, 1e-3), truth[truth > 0]
        span = (float(known.min()), float(known.max())) if len(known) else (1.0, 2.0)
        return colour_metres(truth, span), colour_metres(np.maximum(said, 1e-3), span)
    truth_HW3, said_HW3 = (n.permute(1, 2, 0).numpy() for n in (target, out))
    return colour_normals(truth_HW3), colour_normals(said_HW3)


def colour_metres(depth_HW: F32, span: tuple[float, float]) -> U8:
    """Near is bright, far is dark, by inverse depth inside a span of metres; 0 is black."""
    near, far = 1 / max(span[0], 1e-3), 1 / max(span[1], 1e-3)
    inverse = 1 / np.maximum(depth_HW, 1e-3)
    share = 0.1 + 0.9 * np.clip((inverse - far) / max(near - far, 1e-9), 0, 1)
    tinted: U8 = (colormaps["magma"](share)[..., :3] * 255).astype(np.uint8)
    tinted[depth_HW <= 0] = 0
    return tinted


def _pairs(
    task: Task, out: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    return list(zip(out[task.name], targets[task.name], strict=True))


def _error(task: Task, out: Tensor, target: Tensor) -> Tensor:
    """One image's error: share of wrong pixels, metres, degrees; NaN where nothing is labelled."""
    if task.kind == "segment":
        known = target != NO_PIXEL
        return (out.argmax(0) != target)[known].float().mean()
    if task.kind == "depth":
        known = target > 0
        return (out[0] - target)[known].abs().mean()
    known = target.norm(dim=0) > 0.5
    cosine = (out * target).sum(0)[known].clamp(-1, 1)
    return torch.rad2deg(torch.acos(cosine)).mean()


def _words(task: Task, error: float) -> str:
    if task.kind == "segment":
        return f"{100 * error:.1f} % of its pixels in the wrong class"
    if task.kind == "depth":
        return f"off by {error:.3g} {task.unit or 'm'}"
    return f"off by {error:.1f}° in the mean"


def swatch(number: int) -> str:
    """The colour of a class in a map, as a style sheet writes it."""
    r, g, b = colour_classes(np.full((1, 1), number, np.uint8))[0, 0].tolist()
    return f"rgb({r},{g},{b})"
